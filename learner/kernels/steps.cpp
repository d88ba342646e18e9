// Adam and soft updates of many small arrays in one call each: what plain torch takes for it is mostly overhead.
//
// The arrays lie one after the other in thought; each thread takes an equal part of that line. Elements know nothing of
// each other, so results depend on no thread.

#include "tiles.h"

namespace {

constexpr int64_t kGrain = 4096;  // elements; with fewer per thread, waking threads costs more than they save

// Calls work(array, first, count) for every piece of an array in this thread's part.
template <typename Work>
void in_parts(int64_t arrays, const int64_t* sizes, int threads, Work work) {
  int64_t all = 0;
  for (int64_t array = 0; array < arrays; ++array) all += sizes[array];
  const int used = (int)std::max<int64_t>(1, std::min<int64_t>(threads, all / kGrain));
#pragma omp parallel num_threads(used) if (used > 1)
  {
    FlushDenormals flush;
    const int64_t share = padded((all + omp_get_num_threads() - 1) / omp_get_num_threads(), kLine);
    const int64_t begin = omp_get_thread_num() * share, end = std::min(all, begin + share);
    int64_t start = 0;
    for (int64_t array = 0; array < arrays; start += sizes[array++]) {
      const int64_t first = std::max(begin, start), last = std::min(end, start + sizes[array]);
      if (first < last) work(array, first - start, last - first);
    }
  }
}

}  // namespace

extern "C" {

// One Adam step. ``arrays``: parameters, gradients, first moments, second moments, ``count`` of each.
void adam_arrays(int64_t count, const int64_t* sizes, float* const* arrays, double learning_rate, double beta1,
                 double beta2, double epsilon, double steps_before, int threads) {
  const Adam adam = adam_of_step(learning_rate, beta1, beta2, epsilon, steps_before + 1);
  in_parts(count, sizes, threads, [&](int64_t array, int64_t first, int64_t size) {
    adam.update(arrays[array] + first, arrays[2 * count + array] + first, arrays[3 * count + array] + first,
                arrays[count + array] + first, size);
  });
}

// target += share · (source − target). ``arrays``: targets, then sources, ``count`` of each.
void blend_arrays(int64_t count, const int64_t* sizes, float* const* arrays, float share, int threads) {
  in_parts(count, sizes, threads, [&](int64_t array, int64_t first, int64_t size) {
    float* const target = arrays[array] + first;
    const float* const source = arrays[count + array] + first;
    for (int64_t i = 0; i < size; ++i) target[i] += share * (source[i] - target[i]);
  });
}

}  // extern "C"
