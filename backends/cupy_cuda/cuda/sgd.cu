// g = clip · grad + weight_decay · param
// velocity = momentum · velocity + g        param = param - lr · velocity
//
// A thread does four elements at a time, and goes on at a stride of the whole grid. lr and clip are read
// from memory, so that a captured graph can replay; a clip that is NaN changes nothing.

#include "common.cuh"
#include "quads.cuh"

struct Factors {
  float lr, clip, momentum, weight_decay;
};

// velocity_P: null where g itself is the velocity.
__device__ __forceinline__ void descend(float* param_P, float* velocity_P, const float* grad_P,
                                        const Factors& by, int64 at, int count) {
  Quad param = load_quad(param_P + at, count), grad = load_quad(grad_P + at, count), velocity;
  if (velocity_P) velocity = load_quad(velocity_P + at, count);
  for (int k = 0; k < 4; k++) {
    float g = fmaf(by.clip, grad.part[k], by.weight_decay * param.part[k]);
    velocity.part[k] = velocity_P ? fmaf(by.momentum, velocity.part[k], g) : g;
    param.part[k] = fmaf(-by.lr, velocity.part[k], param.part[k]);
  }
  store_quad(param_P + at, param, count);
  if (velocity_P) store_quad(velocity_P + at, velocity, count);
}

extern "C" __global__ void sgd(float* param_P, float* velocity_P, const float* grad_P,
                               const float* lr_1, const float* clip_1, float momentum,
                               float weight_decay, int64 P) {
  Factors by = {lr_1[0], clip_1[0], momentum, weight_decay};
  if (by.clip != by.clip) return;
  int64 whole = P / 4;
  for (int64 q = thread_index(); q < whole; q += thread_count())
    descend(param_P, velocity_P, grad_P, by, 4 * q, 4);
  int rest = P % 4;
  if (rest && thread_index() == 0) descend(param_P, velocity_P, grad_P, by, 4 * whole, rest);
}
