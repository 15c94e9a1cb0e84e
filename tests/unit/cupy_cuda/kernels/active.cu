extern "C" __global__ void active(unsigned* out_1) { out_1[0] = __activemask(); }
