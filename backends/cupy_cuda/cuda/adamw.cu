// g = clip · grad        m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g²
// param = param - lr · (m / c1 / (sqrt(v / c2) + eps) + weight_decay · param)
//
// The corrections are moved into the factors, which are the same for all elements:
// m / c1 / (sqrt(v / c2) + eps) = (sqrt(c2) / c1) · m / (sqrt(v) + eps sqrt(c2)).
//
// One pass over the arena: a thread does four elements at a time, and goes on at a stride of the whole
// grid. What changes from step to step is read from memory, so that a captured graph can replay.
// Each sum with a product is written as fmaf: the same bits in every kernel that does this step.

#include "common.cuh"
#include "quads.cuh"
#include "philox.cuh"

struct Factors {
  float clip, keep_m, take_m, keep_v, take_v, step, least, decay;
};

__device__ __forceinline__ Factors factors_of(float lr, const float* correction_2, float clip,
                                              float beta1, float rest1, float beta2, float rest2,
                                              float eps, float weight_decay) {
  float root = sqrtf(correction_2[1]);
  Factors by = {clip,  beta1,      rest1,
                beta2, rest2,      lr * (root / correction_2[0]),
                eps * root, lr * weight_decay};
  return by;
}

// Four elements from `at` on, and what param has become.
__device__ __forceinline__ Quad update(float* param_P, float* m_P, float* v_P, const float* grad_P,
                                       const Factors& by, int64 at, int count) {
  Quad param = load_quad(param_P + at, count), grad = load_quad(grad_P + at, count);
  Quad m = load_quad(m_P + at, count), v = load_quad(v_P + at, count);
  for (int k = 0; k < 4; k++) {
    float g = by.clip * grad.part[k];
    m.part[k] = fmaf(by.keep_m, m.part[k], by.take_m * g);
    v.part[k] = fmaf(by.keep_v, v.part[k], by.take_v * (g * g));
    float step = by.step * m.part[k] / (sqrtf(v.part[k]) + by.least);
    // Not (1 - decay) · param: next to 1 a decay of 1e-5 would keep three digits.
    param.part[k] -= fmaf(by.decay, param.part[k], step);
  }
  store_quad(param_P + at, param, count);
  store_quad(m_P + at, m, count);
  store_quad(v_P + at, v, count);
  return param;
}

// rest1, rest2: 1 - beta1 and 1 - beta2, formed in double. A clip that is NaN changes nothing.
extern "C" __global__ void __launch_bounds__(256, 4)
adamw(float* param_P, float* m_P, float* v_P, const float* grad_P, const float* lr_1,
      const float* correction_2, const float* clip_1, float beta1, float rest1, float beta2, float rest2,
      float eps, float weight_decay, int64 P) {
  float clip = clip_1[0];
  if (clip != clip) return;
  Factors by = factors_of(lr_1[0], correction_2, clip, beta1, rest1, beta2, rest2, eps, weight_decay);
  int64 whole = P / 4;
  for (int64 q = thread_index(); q < whole; q += thread_count())
    update(param_P, m_P, v_P, grad_P, by, 4 * q, 4);
  int rest = P % 4;
  if (rest && thread_index() == 0) update(param_P, m_P, v_P, grad_P, by, 4 * whole, rest);
}

// Low-precision weights from four masters; key_2: null to round to nearest.
__device__ __forceinline__ void refresh(element* low_P, const Quad& param, const int* key_2,
                                        uint2 key, int64 block, int64 at, int count) {
  store_quad(low_P + at, key_2 ? round_at_random(param, block, key) : param, count);
}

// first: of the element param_P[0], a multiple of 4: a quad's four random words are of one block.
extern "C" __global__ void __launch_bounds__(256, 4)
adamw_master(float* param_P, element* low_P, float* m_P, float* v_P, const float* grad_P,
             const float* lr_1, const float* correction_2, const float* clip_1, const int* key_2,
             float beta1, float rest1, float beta2, float rest2, float eps, float weight_decay,
             int64 first, int64 P) {
  float clip = clip_1[0];
  bool keep = clip != clip;
  uint2 key = {0, 0};
  if (key_2) key = {(unsigned)key_2[0], (unsigned)key_2[1]};
  Factors by = factors_of(lr_1[0], correction_2, clip, beta1, rest1, beta2, rest2, eps, weight_decay);
  int64 whole = P / 4, block = first / 4;
  for (int64 q = thread_index(); q < whole; q += thread_count()) {
    Quad param = keep ? load_quad(param_P + 4 * q)
                      : update(param_P, m_P, v_P, grad_P, by, 4 * q, 4);
    refresh(low_P, param, key_2, key, block + q, 4 * q, 4);
  }
  int rest = P % 4;
  if (rest && thread_index() == 0) {
    Quad param = keep ? load_quad(param_P + 4 * whole, rest)
                      : update(param_P, m_P, v_P, grad_P, by, 4 * whole, rest);
    refresh(low_P, param, key_2, key, block + whole, 4 * whole, rest);
  }
}
