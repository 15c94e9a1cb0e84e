"""A line of `harness doctor`, and the numbers that it gives with --json."""

from dataclasses import dataclass

OK, WARN, MISSING = "ok", "warn", "missing"


@dataclass(frozen=True)
class Line:
    """do: what to type, where something is wrong. exit_code: of the default run, if it fails by it."""

    status: str
    topic: str
    text: str
    do: str = ""
    exit_code: int = 0

    def __str__(self) -> str:
        first, *others = self.text.splitlines() or [""]
        others += [f"do: {remedy}" for remedy in self.do.splitlines()]
        return "\n".join(
            [f"{self.status:<8} {self.topic:<11} {first}", *(f"{'':21}{text}" for text in others)]
        )


@dataclass
class Measured:
    """Numbers of this examination, for --json."""

    seconds: float = 0.0
    first_step_ms: float | None = None
    matmul_gflops_per_s: float | None = None
    one_thread_gflops_per_s: float | None = None
    coretype_cost: float | None = None
