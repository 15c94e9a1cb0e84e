"""What a backend itself declares to be wrong: xfail, strict, each with a reason.

    known_wrong = {
        "gelu_backward": "tanh of the vendor library is 3 ulp off",
        "softmax_forward[N=1,V=1,normal,seed=0,fp32]": "the launch needs two columns",
    }

A key is a case id, a half-op, or either with `*`. Whatever is declared wrong and is right is a failure,
so that the list can only shrink. An xfail is not a pass, and neither is a half-op that is not there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.conformance.cases.case import Case, parse_case
from harness.conformance.laws import Failure
from harness.contract import OpTable
from harness.errors import ConfigError, PluginError
from harness.plugins.loading import Backend


@dataclass
class KnownWrong:
    """The part of a backend's `known_wrong` that concerns one half-op.

    cases: those that are named in full; they are run even if the effort does not list them.
    """

    hook: str
    reasons: Mapping[str, str]
    cases: list[Case] = field(default_factory=list)
    _seen: dict[str, list[tuple[Case, bool]]] = field(default_factory=dict)

    @classmethod
    def of(cls, backend: Backend, hook: str, ops: OpTable, precision: str) -> "KnownWrong":
        declared = getattr(backend.module, "known_wrong", {}) or {}
        for key, reason in declared.items():
            if not str(reason).strip():
                raise PluginError(
                    f"known_wrong of backend '{backend.name}' gives no reason for {key}",
                    slug="xfail-without-reason",
                    do="say what is wrong, and where it is being worked on",
                )
        ours = {k: r for k, r in declared.items() if _matches(k.partition("[")[0], hook)}
        cases = []
        for key in ours:
            if "[" in key and "*" not in key:
                try:
                    case = parse_case(key, ops)
                except ConfigError as error:
                    raise PluginError(
                        f"known_wrong of backend '{backend.name}' names no case",
                        slug="xfail-unknown-case",
                        found=key,
                        reason=error.headline,
                    ) from error
                cases += [case] if case.precision == precision else []
        return cls(hook, ours, cases)

    def key(self, case: Case) -> str | None:
        for key in self.reasons:
            if _matches(key, case.id) or _matches(key, case.hook):
                return key
        return None

    def reason(self, case: Case) -> str | None:
        """Why a case is known to be wrong, None if it is not."""
        key = self.key(case)
        return None if key is None else self.reasons[key]

    def saw(self, case: Case, failed: bool) -> None:
        key = self.key(case)
        assert key is not None
        self._seen.setdefault(key, []).append((case, failed))

    def not_wrong_after_all(self) -> list[Failure]:
        """A failure for each key of which every case that was run is right."""
        return [
            Failure(
                seen[0][0],
                "xfail",
                f"known_wrong says '{key}' is wrong, and it is right ({len(seen)} cases)",
                details=(f"declared  {self.reasons[key]}", "do        remove it from known_wrong"),
            )
            for key, seen in self._seen.items()
            if not any(failed for _, failed in seen)
        ]


def _matches(pattern: str, text: str) -> bool:
    """Whether a text is the pattern, in which only `*` is special: ids are full of brackets."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None
