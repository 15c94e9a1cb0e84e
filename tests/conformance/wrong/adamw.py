import numpy as np

from tests.conformance.honest import adamw as honest
from tests.conformance.wrong import wrong


def step(
    param_P,
    m_P,
    v_P,
    grad_P,
    lr_1,
    correction_2,
    clip_1,
    beta1,
    beta2,
    eps,
    weight_decay,
    *,
    g_of_v=None,
    one_minus_beta2=None,
    denominator=None,
):
    """The honest step, with places where a bug can be put in."""
    g = grad_P * clip_1
    g_of_v = g if g_of_v is None else g_of_v
    share = np.float32(1 - beta2) if one_minus_beta2 is None else one_minus_beta2
    m_P[...] = np.float32(beta1) * m_P + np.float32(1 - beta1) * g
    v_P[...] = np.float32(beta2) * v_P + share * g_of_v**2
    below = np.sqrt(v_P / correction_2[1]) + np.float32(eps)
    below = below if denominator is None else denominator(v_P)
    decayed = np.float32(weight_decay) * param_P
    param_P -= lr_1 * (m_P / correction_2[0] / below + decayed)


@wrong("adamw", "1 - beta2 formed in float32: 120 units in the last place off", subtle=True)
def one_minus_beta2_in_float32(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    step(
        param_P,
        m_P,
        v_P,
        grad_P,
        lr_1,
        correction_2,
        clip_1,
        beta1,
        beta2,
        eps,
        weight_decay,
        one_minus_beta2=np.float32(1) - np.float32(beta2),
    )


@wrong("adamw", "no bias correction of v")
def v_not_corrected(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    correction = np.array([correction_2[0], 1], np.float32)
    honest.adamw(
        param_P, m_P, v_P, grad_P, lr_1, correction, clip_1, beta1, beta2, eps, weight_decay
    )


@wrong("adamw", "the two bias corrections change places")
def corrections_swapped(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    swapped = correction_2[::-1]
    honest.adamw(param_P, m_P, v_P, grad_P, lr_1, swapped, clip_1, beta1, beta2, eps, weight_decay)


@wrong("adamw", "eps inside of the root")
def eps_inside_root(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    step(
        param_P,
        m_P,
        v_P,
        grad_P,
        lr_1,
        correction_2,
        clip_1,
        beta1,
        beta2,
        eps,
        weight_decay,
        denominator=lambda v: np.sqrt(v / correction_2[1] + np.float32(eps)),
    )


@wrong("adamw", "eps added before v is corrected", subtle=True)
def eps_before_correction(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    step(
        param_P,
        m_P,
        v_P,
        grad_P,
        lr_1,
        correction_2,
        clip_1,
        beta1,
        beta2,
        eps,
        weight_decay,
        denominator=lambda v: (np.sqrt(v) + np.float32(eps)) / np.sqrt(correction_2[1]),
    )


@wrong("adamw", "eps forgotten", subtle=True)
def no_eps(param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay):
    with np.errstate(all="ignore"):
        honest.adamw(
            param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, 0.0, weight_decay
        )


@wrong("adamw", "L2: decay joins the gradient, as in Adam without the W")
def decay_coupled(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    grad = grad_P + np.float32(weight_decay) * param_P
    honest.adamw(param_P, m_P, v_P, grad, lr_1, correction_2, clip_1, beta1, beta2, eps, 0.0)


@wrong("adamw", "decay without the learning rate")
def decay_without_lr(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    decayed = np.float32(weight_decay) * param_P
    honest.adamw(param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, 0.0)
    param_P -= decayed


@wrong("adamw", "decay of the parameter after its step, not before")
def decay_after_step(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    honest.adamw(param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, 0.0)
    param_P -= lr_1 * np.float32(weight_decay) * param_P


@wrong("adamw", "decay with the wrong sign")
def decay_grows(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    honest.adamw(
        param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, -weight_decay
    )


@wrong("adamw", "the gradient is not clipped")
def clip_ignored(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    one = np.ones_like(clip_1)
    honest.adamw(
        param_P, m_P, v_P, grad_P, lr_1, correction_2, one, beta1, beta2, eps, weight_decay
    )


@wrong("adamw", "m sees the clipped gradient, v the other one")
def v_not_clipped(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    step(
        param_P,
        m_P,
        v_P,
        grad_P,
        lr_1,
        correction_2,
        clip_1,
        beta1,
        beta2,
        eps,
        weight_decay,
        g_of_v=grad_P,
    )


@wrong("adamw", "the gradient is clipped where it lies, in the input", subtle=True, law="untouched")
def gradient_clipped_in_place(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    honest.adamw(
        param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
    )
    grad_P *= clip_1


@wrong("adamw", "the step is taken with the old m")
def old_m(param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay):
    before = m_P.copy()
    frozen = param_P.copy()
    honest.adamw(
        param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
    )
    below = np.sqrt(v_P / correction_2[1]) + np.float32(eps)
    decayed = np.float32(weight_decay) * frozen
    param_P[...] = frozen - lr_1 * (before / correction_2[0] / below + decayed)


@wrong("adamw", "parameters beyond the last whole vector of 4 are not updated", subtle=True)
def tail_not_updated(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    run = slice(0, len(param_P) // 4 * 4)
    honest.adamw(
        param_P[run],
        m_P[run],
        v_P[run],
        grad_P[run],
        lr_1,
        correction_2,
        clip_1,
        beta1,
        beta2,
        eps,
        weight_decay,
    )


@wrong("adamw", "its own count of steps in place of the corrections it is given")
def counts_its_own_steps(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    t = counts_its_own_steps.__dict__["t"] = counts_its_own_steps.__dict__.get("t", 0) + 1
    own = np.array([1 - beta1**t, 1 - beta2**t], np.float32)
    honest.adamw(param_P, m_P, v_P, grad_P, lr_1, own, clip_1, beta1, beta2, eps, weight_decay)


@wrong("adamw", "beta1 and beta2 change places")
def betas_swapped(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    honest.adamw(
        param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta2, beta1, eps, weight_decay
    )


@wrong(
    "adamw",
    "weight decay written down as 0.1, whatever is asked for",
    subtle=True,
)
def decay_of_its_own(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    honest.adamw(param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, 0.1)


@wrong("adamw", "a clip of NaN keeps the parameters, and lets the moments decay", subtle=True)
def nan_clip_moves_the_moments(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    rest = (beta1, beta2, eps, weight_decay)
    honest.adamw(param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, *rest)
    if np.isnan(clip_1[0]):
        m_P *= np.float32(beta1)
        v_P *= np.float32(beta2)


@wrong("adamw", "a clip of NaN makes NaN of everything: no such case is thought of", subtle=True)
def nan_clip_is_multiplied_by(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    step(param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay)
