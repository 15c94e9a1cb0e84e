"""Find the plugins that are installed, and import the ones that are asked for.

Listing reads the metadata of distributions and imports nothing. Two distributions that declare the same
name are an error: neither hides the other.
"""

from functools import lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from harness.contract import Op, OpTable, core_ops, read_op
from harness.errors import PluginError
from harness.files.system import import_folders

BACKENDS = "harness.backends"
OPS = "harness.ops"
WRAPPERS = "harness.wrappers"


def installed(group: str = BACKENDS) -> dict[str, EntryPoint]:
    """The plugins of a group by name, read from metadata; nothing is imported.

    The metadata is read again where a folder of `sys.path` has changed: a distribution came or went.
    """
    return dict(_points(group, import_folders()))


@lru_cache(maxsize=16)
def _points(group: str, folders: tuple[tuple[str, int], ...]) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def all_ops() -> OpTable:
    """The core's ops, and those that plugins declare, which are loaded when first asked for."""
    return OpTable(
        core_ops(), {name: partial(_load_op, point) for name, point in installed(OPS).items()}
    )


def _load_op(point: EntryPoint) -> Op:
    return read_op(import_plugin(only(point, OPS), "op"), point.name)


def only(point: EntryPoint, group: str) -> EntryPoint:
    """The plugin, if no other distribution has one of the same name: none silently hides another."""
    rivals = {distribution_of(rival) for rival in entry_points(group=group, name=point.name)}
    if len(rivals) > 1:
        raise PluginError(
            f"'{point.name}' is declared by more than one distribution",
            slug="plugin-ambiguous",
            found=", ".join(sorted(rivals)),
            do="uninstall all but one, or give a file",
        )
    return point


def import_plugin(point: EntryPoint, kind: str) -> ModuleType:
    """The module of an entry point. Raises PluginError where it cannot be imported, or is no module.

    kind: what the error calls it: backend, wrapper, op.
    """
    try:
        module = point.load()
    except (Exception, SystemExit) as error:
        what = f"the {kind} '{point.name}' of {distribution_of(point)}"
        raise broken(what, point.value, error) from error
    if not isinstance(module, ModuleType):
        raise PluginError(
            f"the {kind} '{point.name}' of {distribution_of(point)} is not a module",
            slug="plugin-not-a-module",
            found=f"{point.value} is a {type(module).__name__}",
        )
    return module


def broken(what: str, where: str, error: BaseException) -> PluginError:
    """The error for a plugin whose import raised. what: the plugin; where: its module or file."""
    reason = f"{type(error).__name__}: {error}"
    return PluginError(
        f"{what} cannot be imported",
        slug="plugin-import-failed",
        where=where,
        reason=reason,
        effect="nothing else is affected; runs that do not name it work",
    )


def distribution_of(point: EntryPoint) -> str:
    """`name version` of the distribution that declares a plugin."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
