"""Find how long each activation is needed, and place them all in one arena per device.

What a call needs in between lives as long as the call, in the same arena.
"""

from harness.planning.arena import ArenaUse, Block, live_bytes, place
from harness.planning.plan import Step, Version, View


def place_by_lifetime(
    steps: list[Step], kept: list[Version], after: list[Step]
) -> dict[str, ArenaUse]:
    """Give every activation and all scratch its place; returns device -> the use of its arena.

    steps: forward and backward, in order. kept: versions that the host reads at the end.
    after: steps that touch no activation, and may need scratch.
    An output takes over the memory of an input that dies with the call, where the op allows it.
    """
    last: dict[Version, int] = {}
    for index, step in enumerate(steps):
        for view in step.views:
            last[view.version] = index
    for version in kept:
        last[version] = len(steps) + len(after)
    blocks: dict[str, list[Block]] = {}
    for index, step in enumerate(steps):
        for view in step.views:
            version = view.version
            if version.kind != "activation" or version.block.first >= 0:
                continue
            taken = _taken_over(step, version, index)
            if taken is not None:
                version.block = taken.block
                version.block.last = max(version.block.last, last[version])
                continue
            version.block = Block(version.nbytes, index, last[version])
            blocks.setdefault(version.device, []).append(version.block)
    scratch: dict[str, list[Block]] = {}
    for index, step in enumerate([*steps, *after]):
        if step.scratch is not None:
            step.scratch.first = step.scratch.last = index
            scratch.setdefault(step.device, []).append(step.scratch)
    return {
        device: _use(blocks.get(device, []), scratch.get(device, []))
        for device in dict.fromkeys((*blocks, *scratch))
    }


def _use(activations: list[Block], scratch: list[Block]) -> ArenaUse:
    live = live_bytes([*activations, *scratch])
    return ArenaUse(place([*activations, *scratch]), live, live - live_bytes(activations))


def _taken_over(step: Step, version: Version, index: int) -> Version | None:
    """The input whose memory an output may take over: allowed by the op, and read for the last time."""
    if step.call is None:
        return None
    for out, source in step.call.half.may_alias:
        target, origin = step.arguments.get(out), step.arguments.get(source)
        if not (isinstance(target, View) and isinstance(origin, View)):
            continue
        if (
            target.version is version
            and origin.version.kind == "activation"
            and origin.version.nbytes == version.nbytes
            and origin.version.block.last == index
        ):
            return origin.version
    return None
