"""Import a backend's package anew from sources in memory, one of them with a mistake in it."""

import importlib
import importlib.abc
import importlib.util
import json
import sys
from dataclasses import asdict, dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any


@dataclass(frozen=True)
class Subject:
    """The backend to be broken, read from its sources.

    package: of its modules. plugin: the module that lists its ops.
    files: name, relative to the package's folder -> source.
    hooks: file name -> the hooks that it has a part in, its own first.
    large: file name -> those of them that are judged on large cases. precisions: that it declares.
    slow: whether it says so, as a backend in a simulator does.
    """

    backend: str
    package: str
    plugin: str
    files: dict[str, str]
    large: dict[str, tuple[str, ...]]
    hooks: dict[str, tuple[str, ...]]
    precisions: tuple[str, ...]
    slow: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Subject":
        said = json.loads(text)
        for key in ("large", "hooks"):
            said[key] = {name: tuple(hooks) for name, hooks in said[key].items()}
        return cls(**{**said, "precisions": tuple(said["precisions"])})


class Replaced(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A context in which a backend's package is imported anew from a Subject, with one source replaced.

    Nothing is written to disk, and changes on disk meanwhile make no difference. Afterwards the package
    is as it was.
    """

    def __init__(self, subject: Subject, file: str, source: str) -> None:
        self._subject = subject
        self._file, self._source = file, source

    def __enter__(self) -> "Replaced":
        self._before = self._forget()
        sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.meta_path.remove(self)
        self._forget()
        sys.modules.update(self._before)
        # `import a.b.c as name` looks b up in a, not in sys.modules.
        above, _, name = self._subject.package.rpartition(".")
        if above and self._subject.package in self._before:
            setattr(sys.modules[above], name, self._before[self._subject.package])

    def load(self) -> ModuleType:
        return importlib.import_module(self._subject.plugin)

    def _forget(self) -> dict[str, ModuleType]:
        package = self._subject.package
        names = [n for n in sys.modules if n == package or n.startswith(package + ".")]
        return {name: sys.modules.pop(name) for name in names}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        file = self._file_of(name)
        if file not in self._subject.files:
            return None
        whole = file.endswith("__init__.py")
        return importlib.util.spec_from_loader(name, self, origin=file, is_package=whole)

    def exec_module(self, module: ModuleType) -> None:
        file = self._file_of(module.__name__)
        module.__file__ = file
        if file == self._file:
            code = compile(self._source, f"<mutant of {file}>", "exec")
        else:
            code = _compiled(self._subject.files[file], file)
        exec(code, module.__dict__)

    def _file_of(self, name: str) -> str:
        """folder.py or folder/__init__.py, of a module of the package; empty for any other."""
        package = self._subject.package
        if name != package and not name.startswith(package + "."):
            return ""
        inside = name.removeprefix(package).replace(".", "/").lstrip("/")
        whole = f"{inside}/__init__.py".lstrip("/")
        return whole if whole in self._subject.files else f"{inside}.py"


@cache
def _compiled(source: str, file: str) -> CodeType:
    return compile(source, file, "exec")
