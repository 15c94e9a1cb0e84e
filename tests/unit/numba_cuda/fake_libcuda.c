// A CUDA driver that computes nothing: memory is the host's, and each call is written down.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef int R; typedef uint64_t P; typedef void *H;
static int capturing; static int params; static size_t left = 1ull << 30; static H current;
static FILE *out(void) { static FILE *f; if (!f) { const char *n = getenv("FAKE_CUDA_LOG"); f = n ? fopen(n, "a") : stderr; } return f; }
#define SAY(...) (fprintf(out(), __VA_ARGS__), fputc('\n', out()), fflush(out()))
void fake_params(int count) { params = count; }
R cuInit(unsigned f) { return getenv("FAKE_CUDA_NO_DEVICE") ? 100 : 0; }
R cuDriverGetVersion(int *v) { const char *n = getenv("FAKE_CUDA_VERSION"); *v = n ? atoi(n) : 13000; return 0; }
R cuDeviceGetCount(int *n) { *n = 1; return 0; }
R cuDeviceGet(int *d, int o) { *d = o; return 0; }
R cuDeviceGetName(char *name, int len, int d) { snprintf(name, len, "Pretended H100"); return 0; }
R cuDeviceGetUuid_v2(void *u, int d) { memset(u, 0, 16); return 0; }
R cuDeviceGetAttribute(int *v, int a, int d) { const char *cc = getenv("FAKE_CUDA_CC"); int c = cc ? atoi(cc) : 90;
  *v = a == 75 ? c / 10 : a == 76 ? c % 10 : a == 16 ? 132 : 1; return 0; }
R cuDeviceTotalMem_v2(size_t *n, int d) { *n = 1ull << 31; return 0; }
R cuCtxGetCurrent(H *c) { *c = current; return 0; }
R cuCtxSetCurrent(H c) { current = c; return 0; }
R cuCtxPushCurrent_v2(H c) { current = c; return 0; }
R cuCtxPopCurrent_v2(H *c) { *c = current; current = 0; return 0; }
R cuCtxGetDevice(int *d) { *d = 0; return 0; }
R cuDevicePrimaryCtxRetain(H *c, int d) { *c = (H)0xC0; return 0; }
R cuMemAlloc_v2(P *p, size_t n) { if (n > left) return 2; SAY("cuMemAlloc %zu", n); void *m = aligned_alloc(256, (n + 255) / 256 * 256); memset(m, 255, n); *p = (P)m; return 0; }
R cuMemFree_v2(P p) { SAY("cuMemFree"); free((void *)p); return 0; }
R cuMemGetInfo_v2(size_t *f, size_t *t) { *f = left; *t = 1ull << 31; return 0; }
R cuMemHostAlloc(void **p, size_t n, unsigned f) { SAY("cuMemHostAlloc %zu", n); *p = malloc(n); return 0; }
R cuMemFreeHost(void *p) { free(p); return 0; }
R cuMemcpyHtoDAsync_v2(P d, const void *s, size_t n, H h) { SAY("cuMemcpyHtoDAsync %zu on %p", n, h); if (!capturing) memcpy((void *)d, s, n); return 0; }
R cuMemcpyDtoHAsync_v2(void *d, P s, size_t n, H h) { SAY("cuMemcpyDtoHAsync %zu on %p", n, h); if (!capturing) memcpy(d, (void *)s, n); return 0; }
R cuMemsetD8Async(P d, unsigned char c, size_t n, H h) { SAY("cuMemsetD8Async %zu on %p", n, h); if (!capturing) memset((void *)d, c, n); return 0; }
R cuStreamCreate(H *h, unsigned f) { SAY("cuStreamCreate %u", f); *h = (H)0x57; return 0; }
R cuStreamSynchronize(H h) { SAY("cuStreamSynchronize %p", h); return 0; }
R cuStreamGetCtx(H h, H *c) { *c = (H)0xC0; return 0; }
R cuStreamBeginCapture_v2(H h, int m) { SAY("cuStreamBeginCapture %p %d", h, m); capturing = 1; return 0; }
R cuStreamEndCapture(H h, H *g) { SAY("cuStreamEndCapture %p", h); capturing = 0; *g = (H)0x6; return 0; }
R cuGraphInstantiateWithFlags(H *e, H g, unsigned long long f) { SAY("cuGraphInstantiate %p %llu", g, f); *e = (H)0x7; return 0; }
R cuGraphUpload(H e, H h) { SAY("cuGraphUpload %p on %p", e, h); return 0; }
R cuGraphLaunch(H e, H h) { SAY("cuGraphLaunch %p on %p", e, h); return 0; }
R cuGraphDestroy(H g) { SAY("cuGraphDestroy %p", g); return 0; }
R cuGraphExecDestroy(H g) { SAY("cuGraphExecDestroy %p", g); return 0; }
R cuEventCreate(H *e, unsigned f) { static P n = 0xE00; *e = (H)n++; return 0; }
R cuEventRecord(H e, H h) { SAY("cuEventRecord on %p", h); return 0; }
R cuEventSynchronize(H e) { SAY("cuEventSynchronize"); return 0; }
R cuEventElapsedTime(float *t, H a, H b) { *t = 2.5f; return 0; }
R cuLibraryLoadData(H *l, const void *c, void *a, void *b, unsigned n, void *d, void *e, unsigned m) { SAY("cuLibraryLoadData"); static P one = 0x110; *l = (H)one++; return 0; }
R cuLibraryGetKernel(H *k, H l, const char *name) { *k = strdup(name); return 0; }
R cuLibraryGetGlobal(P *p, size_t *n, H l, const char *name) { return 500; }
R cuKernelGetFunction(H *f, H k) { *f = k; return 0; }
R cuKernelGetAttribute(int *v, int a, H k, int d) { *v = a == 0 ? 1024 : 0; return 0; }
typedef struct { unsigned g[3], b[3], shared; H stream; void *attrs; unsigned n; } Config;
static void said(H f, const unsigned *g, const unsigned *b, H h, void **a) {
  fprintf(out(), "launch %s grid %u,%u,%u block %u,%u,%u on %p:", (char *)f, g[0], g[1], g[2], b[0], b[1], b[2], h);
  for (int i = 0; i < params; i++) fprintf(out(), " %llx", *(unsigned long long *)a[i]);
  SAY(""); }
R cuLaunchKernelEx(const Config *c, H f, void **a, void **e) { said(f, c->g, c->b, c->stream, a); return 0; }
R cuLaunchKernel(H f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned s, H h, void **a, void **e) {
  unsigned g[] = {gx, gy, gz}, b[] = {bx, by, bz}; said(f, g, b, h, a); return 0; }
R cuGetErrorName(R e, const char **s) { *s = "SOME_ERROR"; return 0; }
R cuGetErrorString(R e, const char **s) { *s = "some error"; return 0; }
static R other(void) { return 0; }
R cuGetProcAddress_v2(const char *name, void **f, int version, uint64_t flags, int *status) {
  static void *self; if (!self) { Dl_info i; dladdr((void *)cuInit, &i); self = dlopen(i.dli_fname, RTLD_NOW); }
  char v2[128]; snprintf(v2, sizeof v2, "%s_v2", name);
  *f = dlsym(self, v2); if (!*f) *f = dlsym(self, name); if (!*f) { if (getenv("FAKE_CUDA_VERBOSE")) SAY("other %s", name); *f = (void *)other; }
  if (status) *status = 0; return 0; }
R cuGetProcAddress(const char *name, void **f, int version, uint64_t flags) { return cuGetProcAddress_v2(name, f, version, flags, 0); }
