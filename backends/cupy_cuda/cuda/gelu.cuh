// gelu and its slope of one number, in float. After common.cuh.

#define SQRT_2_OVER_PI 0.7978845608028654f
#define CUBIC 0.044715f

// tanh(u) by way of exp: 1 - 2 / (exp(2u) + 1) would cancel near 0, so half the logistic is taken.
__device__ __forceinline__ float logistic(float u2) { return 1.0f / (1.0f + expf(-u2)); }

__device__ __forceinline__ float gelu(float x) {
  float u = SQRT_2_OVER_PI * (x + CUBIC * x * x * x);
  return x * logistic(2.0f * u);
}

__device__ __forceinline__ float gelu_slope(float x) {
  float square = x * x;
  float u = SQRT_2_OVER_PI * (x + CUBIC * x * square);
  float s = logistic(2.0f * u);
  float du = SQRT_2_OVER_PI * (1.0f + 3.0f * CUBIC * square);
  return s + x * 2.0f * s * logistic(-2.0f * u) * du;
}
