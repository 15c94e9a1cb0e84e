"""Turn a program into a plan. Nothing is computed here.

Decided for each call: which backend, which copy of each tensor, and whether it accumulates into a
gradient. Where producer and consumer differ in dtype or device, a cast or a copy is inserted
(versions.py).
"""

from collections.abc import Iterable
from typing import Any

from harness.contract import Acc, Op, Signature, State
from harness.contract.precision import FLOAT32, Precision
from harness.contract.signature import merge_leading
from harness.errors import ConfigError, PluginError
from harness.graph.autodiff import Backward, differentiate
from harness.graph.program import Call, Program, Tensor, expand
from harness.graph.recompute import recompute as compute_again
from harness.planning.arena import Block
from harness.planning.bf16_weights import renewal
from harness.planning.layout import Layout, make_layout
from harness.planning.lifetimes import place_by_lifetime
from harness.planning.plan import Plan, Step, Version, View
from harness.planning.versions import Versions, copy_onto
from harness.plugins.dispatch import Choice, Dispatch
from harness.plugins.scratch import MAX_BYTES, needed


def make_plan(
    program: Program,
    results: Tensor | Iterable[Tensor],
    dispatch: Dispatch,
    precision: Precision,
    *,
    train: bool,
    home: str = "host",
    transfer: str = "refuse",
    recompute: str = "none",
    scratch_bytes: int = MAX_BYTES,
    layout: Layout | None = None,
) -> Plan:
    """Plan a program.

    results: what the host reads after the forward; when `train`, the first is the loss of each row,
        and every trained parameter gets its gradient.
    home: the device of parameters, gradients and optimizer. transfer: `allow` or `refuse` copies
        between devices. recompute: which activations the backward makes again (recompute.py).
    scratch_bytes: what an op that can work in pieces keeps to in between.
    layout: of the parameters' arenas, where the program has only some of them.
    Raises ConfigError where copies are needed and refused, PluginError where a backend cannot do what
    it was chosen for.
    """
    results = [results] if isinstance(results, Tensor) else list(results)
    program, reasons, results = _expanded(program, results, dispatch)
    backward = differentiate(program, results[0]) if train else None
    if backward is not None and not backward.gradients:
        raise ConfigError(
            f"{results[0].name} depends on no trained parameter",
            slug="nothing-to-train",
            do="train at least one parameter that the loss depends on",
        )
    layout = layout or make_layout(program)
    planner = _Planner(dispatch, precision, home, scratch_bytes, layout)
    if backward is not None:
        backward = compute_again(program, backward, recompute, results, planner.makes_the_same)
    plan = planner.plan(program, results, backward, reasons)
    if plan.copies and transfer != "allow":
        raise _refused_copies(plan)
    return plan


def _expanded(
    program: Program, results: list[Tensor], dispatch: Dispatch
) -> tuple[Program, dict[str, str], list[Tensor]]:
    why: dict[str, str | None] = {}

    def reason(op: Op) -> str | None:
        if op.name not in why:
            why[op.name] = dispatch.expansion(op)
        return why[op.name]

    expanded, reasons, replaced = expand(program, reason)
    roots = [replaced.get(r.root, r.root) for r in results]
    return (
        expanded,
        reasons,
        [root.reshape(*r.shape) for root, r in zip(roots, results, strict=True)],
    )


def _refused_copies(plan: Plan) -> ConfigError:
    total = sum(step.views[0].version.nbytes for step in plan.copies)
    listed = [f"{step.views[0].version} -> {step.views[1].version.device}" for step in plan.copies]
    more = f"\n... and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ConfigError(
        f"this mix of backends needs {len(listed)} copies between devices, {total:,} bytes a step",
        slug="transfer-refused",
        copies="\n".join(listed[:5]) + more,
        do="transfer=allow, or choose backends on one device",
    )


def _unsupported(choice: Choice, op: str, policy: str) -> PluginError:
    known = choice.backend.computes
    # Where it has no arithmetic at all for a precision, the next op would be refused too.
    whole = f"precision={next(iter(known))}, " if known and policy not in known else ""
    return PluginError(
        f"backend '{choice.backend.name}' does not compute {op} in {policy} "
        f"(chosen by {choice.chosen_by})",
        slug="precision-unsupported",
        supported=", ".join(known) or "none",
        do=f"{whole}precision_of.{op}=fp32, or another backend for it",
    )


class _Planner:
    """Plans one program: forward, backward and gathered gradients, section by section."""

    def __init__(
        self,
        dispatch: Dispatch,
        precision: Precision,
        home: str,
        scratch_bytes: int,
        layout: Layout,
    ) -> None:
        self.dispatch, self.precision, self.home = dispatch, precision, home
        self.scratch_bytes = scratch_bytes
        self.layout = layout
        self.versions = Versions(dispatch, precision)
        self.written_gradients: dict[Tensor, list[Version]] = {}
        self.steps: list[Step] = []

    def plan(
        self,
        program: Program,
        results: list[Tensor],
        backward: Backward | None,
        expanded: dict[str, str],
    ) -> Plan:
        for parameter in program.parameters.values():
            self.versions.originate(parameter, self.home, FLOAT32, "parameter")
        self._gradients = backward.gradients if backward else {}
        for gradient in self._gradients.values():
            self.versions.originate(gradient, self.home, FLOAT32, "gradient")
        forward = self._section(program.calls, [])
        after = self._section(backward.calls, backward.fillers) if backward else []
        gather = self._gather()
        refresh = self.versions.refresh
        if any(v.kind == "parameter" and v.dtype != FLOAT32 for v in self.versions.all.values()):
            # Before all copies: the narrower of two copies is what travels.
            refresh[:0] = renewal(program, self.layout, self.precision, self.dispatch, self.home)
        # A result's buffer is read by the host after the forward, and once more at the step's end.
        kept = [self.versions.origin[r.root] for r in results]
        self._add_scratch([*forward, *after, *gather, *refresh])
        arenas = place_by_lifetime(forward + after, kept, gather + refresh)
        return Plan(
            program=program,
            dispatch=self.dispatch,
            precision=self.precision,
            home=self.home,
            loss=View(kept[0], results[0].shape) if backward else None,
            results=[View(v, r.shape) for v, r in zip(kept, results, strict=True)],
            forward=forward,
            backward=after,
            gather=gather,
            refresh=refresh,
            versions=self.versions.all,
            gradients={name: self.versions.origin[g] for name, g in self._gradients.items()},
            seed=self._seed(backward) if backward else None,
            expanded=expanded,
            arenas=arenas,
        )

    def makes_the_same(self, op: Op, part: Op) -> bool:
        """Whether the forward of a part gives the bits that a fused op gave, from what it kept.

        One backend computes both, in the arithmetic that the kept tensor has: nothing was rounded away.
        """
        names, hooks = (op.name, part.name), (op.forward.name, part.forward.name)
        backend, other = (self.dispatch.choose(hook).backend for hook in hooks)
        arithmetic = {backend.computes_in(name, self.precision.of(name)) for name in names}
        dtypes = {self.precision.dtype("activation", name) for name in names}
        return backend is other and arithmetic == {"f32"} and dtypes == {FLOAT32}

    def _add_scratch(self, steps: list[Step]) -> None:
        for step in steps:
            if step.choice is None or step.call is None:
                continue
            policy = self.precision.of(step.call.op.name)
            nbytes = needed(step.choice, step.call.dims, policy, self.scratch_bytes)
            if nbytes:
                step.scratch = Block(nbytes, -1, -1)

    def _seed(self, backward: Backward) -> View:
        seed = backward.seed
        version = next(v for (t, _, _), v in self.versions.all.items() if t is seed)
        return View(version, seed.shape)

    def _section(self, calls: list[Call], fillers: list[Tensor]) -> list[Step]:
        self.steps = []
        for call in calls:
            self._call(call, fillers)
        return self.steps

    def _call(self, call: Call, fillers: list[Tensor]) -> None:
        choice = self.dispatch.choose(call.hook)
        op, device = call.op.name, choice.backend.device
        policy = self.precision.of(op)
        if choice.backend.computes_in(op, policy) is None:
            raise _unsupported(choice, op, policy)
        arguments = self._arguments(call, device, fillers)
        accumulate = self._accumulate(call.half.signature, arguments)
        if "accumulate" in arguments:
            arguments["accumulate"] = accumulate
        self.steps.append(Step("op", call.hook, arguments, choice, call, accumulate))

    def _arguments(self, call: Call, device: str, fillers: list[Tensor]) -> dict[str, Any]:
        """What a call is given: a version of each tensor on its device, in the shape it sees."""
        signature = call.half.signature
        arguments: dict[str, Any] = {}
        for argument in signature.arguments:
            value = call.arguments[argument.name]
            if not isinstance(value, Tensor):
                arguments[argument.name] = value
                continue
            assert argument.role is not None
            dtype = self.precision.dtype(argument.role.dtype, call.op.name)
            if argument.role.dtype == "own":
                dtype = self.versions.own_dtype(value)
            if argument.role is State:
                version = self.versions.to_update(value.root, device, dtype)
            elif signature.writes(argument):
                version = self.versions.to_write(value.root, device, dtype, argument.role is Acc)
            else:
                version = self.versions.to_read(value.root, device, dtype, fillers, self.steps)
            shape = merge_leading(value.shape, len(argument.dims))
            assert shape is not None
            arguments[argument.name] = View(version, shape)
        return arguments

    def _accumulate(self, signature: Signature, arguments: dict[str, Any]) -> bool:
        """Whether a call adds to its gradients already in the first micro-batch.

        It must, once one of them was written before; those that were not are zeroed first.
        """
        versions = [
            arguments[a.name].version
            for a in signature.outputs
            if a.role is Acc and arguments[a.name] is not None
        ]
        fresh = [v for v in versions if not self._was_written(v)]
        for version in versions:
            written = self.written_gradients.setdefault(version.tensor, [])
            if version not in written:
                written.append(version)
        if len(fresh) == len(versions):
            return False
        for version in fresh:
            view = View(version, version.tensor.shape)
            self.steps.append(Step("zero", "zero", {"buffer": view}, first_only=True))
        return True

    def _was_written(self, version: Version) -> bool:
        return version in self.written_gradients.get(version.tensor, ())

    def _gather(self) -> list[Step]:
        """Bring gradients that were made on other devices home, and add them up there."""
        self.steps = []
        for gradient in self._gradients.values():
            home = self.versions.origin[gradient]
            written = self.written_gradients.get(gradient, [])
            away = [v for v in written if v is not home]
            for number, version in enumerate(away):
                if number == 0 and home not in written:
                    self.steps.append(copy_onto(version, home))
                    continue
                landed = Tensor(
                    f"{gradient.name} from {version.device}",
                    gradient.shape,
                    "gradient",
                    "gradient",
                    gradient.program,
                )
                landing = self.versions.originate(landed, self.home, FLOAT32, "gradient")
                self.steps.append(copy_onto(version, landing))
                self._add(home, landing)
        return self.steps

    def _add(self, total: Version, other: Version) -> None:
        choice = self.dispatch.choose("residual_forward")
        if choice.backend.device != total.device:
            raise ConfigError(
                f"{total.tensor.name} is made on two devices and must be summed on {total.device}, "
                f"and {choice.chosen_by}={choice.backend.name} is on {choice.backend.device}",
                slug="sum-elsewhere",
                do="ops.residual_forward=NAME of a backend on that device",
            )
        op = self.dispatch.ops["residual"]
        shape = (1, total.tensor.size)
        sum_view, other_view = View(total, shape), View(other, shape)
        arguments = {"out_NC": sum_view, "a_NC": sum_view, "b_NC": other_view}
        call = Call(op, op.forward, arguments, {"N": 1, "C": shape[1]})
        self.steps.append(Step("op", "residual_forward", arguments, choice, call))
