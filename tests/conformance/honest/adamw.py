import numpy as np

from tests.conformance.honest import honest


@honest("adamw", "the formula, with 1 - beta formed in double")
def adamw(param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay):
    if np.isnan(clip_1[0]):
        return
    g = grad_P * clip_1
    m_P[...] = np.float32(beta1) * m_P + np.float32(1 - beta1) * g
    v_P[...] = np.float32(beta2) * v_P + np.float32(1 - beta2) * g**2
    step = m_P / correction_2[0] / (np.sqrt(v_P / correction_2[1]) + np.float32(eps))
    param_P[...] = param_P - lr_1 * (step + np.float32(weight_decay) * param_P)


@honest("adamw", "corrections and learning rate folded into one factor and one eps, in double")
def folded(param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay):
    if np.isnan(clip_1[0]):
        return
    c1, c2 = correction_2.astype(np.float64)
    lr = float(lr_1[0])
    g = grad_P * clip_1
    m_P *= np.float32(beta1)
    m_P += np.float32(1 - beta1) * g
    v_P *= np.float32(beta2)
    v_P += np.float32(1 - beta2) * g * g
    # m/c1 / (sqrt(v/c2) + eps) = m sqrt(c2)/c1 / (sqrt(v) + eps sqrt(c2))
    factor, small = np.float32(lr * np.sqrt(c2) / c1), np.float32(eps * np.sqrt(c2))
    param_P *= np.float32(1 - lr * weight_decay)
    param_P -= factor * (m_P / (np.sqrt(v_P) + small))


@honest("adamw", "the moments moved towards g: m += (1 - beta1) (g - m)")
def by_interpolation(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    if np.isnan(clip_1[0]):
        return
    g = grad_P * clip_1
    m_P += np.float32(1 - beta1) * (g - m_P)
    v_P += np.float32(1 - beta2) * (g * g - v_P)
    denominator = np.sqrt(v_P / correction_2[1]) + np.float32(eps)
    param_P -= (
        lr_1 * np.float32(weight_decay) * param_P + lr_1 * (m_P / correction_2[0]) / denominator
    )


@honest("adamw", "everything in float64, rounded once")
def in_double(
    param_P, m_P, v_P, grad_P, lr_1, correction_2, clip_1, beta1, beta2, eps, weight_decay
):
    if np.isnan(clip_1[0]):
        return
    g = grad_P.astype(np.float64) * clip_1
    m = beta1 * m_P.astype(np.float64) + (1 - beta1) * g
    v = beta2 * v_P.astype(np.float64) + (1 - beta2) * g**2
    step = m / correction_2[0] / (np.sqrt(v / correction_2[1]) + eps)
    param_P[...] = param_P - lr_1 * (step + weight_decay * param_P.astype(np.float64))
    m_P[...], v_P[...] = m, v
