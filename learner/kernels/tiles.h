// Small matrix products and Adam on a CPU, and the surrogate by tiles of hidden units: P inputs, H units with
// LeakyReLU, N logits, float32.
//
// Compiled for the machine at hand by learner/native_code.py. Must never allocate, keep state, or touch anything but
// its arguments.
//
// Axis legend: B rows, P inputs, H hidden units, N outputs, T threads. Units are split over the threads, so each keeps
// its own part of the weights in its own cache. "Panel": 2 vectors of columns that lie together.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <omp.h>
#include <utility>
#if defined(__SSE__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 12;  // 24 of 32 registers hold sums
constexpr int kDepth = 1 << 20;         // a whole panel stays in the first-level cache of 48 KiB beside two more
#elif defined(__AVX__)
constexpr int kLanes = 8, kRows = 6;  // 12 of 16
constexpr int kDepth = 192;           // 12 KiB of a panel and the rows that pass by it fit into 32 KiB
#else
constexpr int kLanes = 4, kRows = 6;
constexpr int kDepth = 192;
#endif
constexpr int kPanel = 2 * kLanes;
constexpr int kLine = 16;  // floats
constexpr int kTile = 24;  // hidden units that are worked on together: their weights fit the first-level cache
constexpr float kSlope = 0.01f;

typedef float Vector __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }
inline Vector splat(float value) { return value - Vector{}; }  // "+" would turn −0 into 0, so it costs an addition
inline int64_t padded(int64_t size, int64_t unit) { return (size + unit - 1) / unit * unit; }

// Ask for ``size`` floats that will be read and written soon: other data passed through the nearer caches since.
inline void fetch(const float* from, int64_t size) {
  for (int64_t i = 0; i < size; i += kLine) __builtin_prefetch(from + i, 1);
}

// One bit per lane: whether it is above zero; and back to the activation's slopes.
inline uint16_t positive(Vector value) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)value, _mm512_setzero_ps(), _CMP_GT_OQ);
#elif defined(__AVX2__)
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)value, _mm256_setzero_ps(), _CMP_GT_OQ));
#else
  uint16_t bits = 0;
  for (int lane = 0; lane < kLanes; ++lane) bits |= (value[lane] > 0.0f) << lane;
  return bits;
#endif
}

inline Vector slopes(uint16_t bits) {
#if defined(__AVX512F__)
  return (Vector)_mm512_mask_blend_ps(bits, _mm512_set1_ps(kSlope), _mm512_set1_ps(1.0f));
#elif defined(__AVX2__)
  const __m256i lane_bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i is_set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits), lane_bit), lane_bit);
  return (Vector)_mm256_blendv_ps(_mm256_set1_ps(kSlope), _mm256_set1_ps(1.0f), _mm256_castsi256_ps(is_set));
#else
  Vector value;
  for (int lane = 0; lane < kLanes; ++lane) value[lane] = bits >> lane & 1 ? 1.0f : kSlope;
  return value;
#endif
}

// m / (sqrt(v) · inverse_correction + epsilon). Two Newton steps give float32 to its last bits at a third of the cost
// of the exact instructions.
inline Vector adam_direction(Vector m, Vector v, Vector inverse_correction, Vector epsilon) {
#if defined(__AVX512F__)
  // √1e-37 is far below epsilon, so raising v to it changes nothing and keeps 1/√v finite.
  Vector guarded = (Vector)_mm512_max_ps((__m512)v, _mm512_set1_ps(1e-37f));
  Vector r = (Vector)_mm512_rsqrt14_ps((__m512)guarded);
  Vector root = guarded * r;
  root = root + 0.5f * r * (guarded - root * root);
  Vector denominator = root * inverse_correction + epsilon;
  Vector reciprocal = (Vector)_mm512_rcp14_ps((__m512)denominator);
  reciprocal = reciprocal + reciprocal * (1.0f - denominator * reciprocal);
  return m * reciprocal;
#else
  Vector root;
  for (int lane = 0; lane < kLanes; ++lane) root[lane] = std::sqrt(v[lane]);
  return m / (root * inverse_correction + epsilon);
#endif
}

// c[R][V vectors] (+)= Σ_k a[r·a_row + k·a_step] · b[k·b_row + …]
template <int R, int V>
inline __attribute__((always_inline)) void block_product(const float* a, int64_t a_row, int64_t a_step, const float* b,
                                                         int64_t b_row, float* c, int64_t c_row, int64_t depth,
                                                         bool adds) {
  Vector sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sum[r][v] = adds ? load(c + r * c_row + v * kLanes) : Vector{};
  for (int64_t k = 0; k < depth; ++k) {
    Vector right[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) right[v] = load(b + k * b_row + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      Vector left = splat(a[r * a_row + k * a_step]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[r][v] += left * right[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) store(c + r * c_row + v * kLanes, sum[r][v]);
}

// The same for any number of rows and one panel (V = 2) or one vector (V = 1) of columns.
template <int V>
void product(int64_t rows, const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_row, float* c,
             int64_t c_row, int64_t depth, bool adds) {
  for (; depth > kDepth; depth -= kDepth, a += kDepth * a_step, b += kDepth * b_row, adds = true)
    product<V>(rows, a, a_row, a_step, b, b_row, c, c_row, kDepth, adds);
  auto advance = [&](int64_t done) { rows -= done, a += done * a_row, c += done * c_row; };
  for (; rows >= kRows; advance(kRows)) block_product<kRows, V>(a, a_row, a_step, b, b_row, c, c_row, depth, adds);
  if (rows >= 8 && kRows > 8) block_product<8, V>(a, a_row, a_step, b, b_row, c, c_row, depth, adds), advance(8);
  if (rows >= 4) block_product<4, V>(a, a_row, a_step, b, b_row, c, c_row, depth, adds), advance(4);
  if (rows >= 2) block_product<2, V>(a, a_row, a_step, b, b_row, c, c_row, depth, adds), advance(2);
  if (rows >= 1) block_product<1, V>(a, a_row, a_step, b, b_row, c, c_row, depth, adds);
}

struct Network {
  int64_t inputs, hidden, outputs;
  float *weight1, *bias1, *weight2, *bias2;  // (H, P), (H), (N, H), (N): torch.nn.Linear's layout
};

struct Adam {
  float weight1, beta2, weight2, epsilon;  // weights of the new gradient: 1 − β₁, 1 − β₂
  float step_size, inverse_correction;  // lr / (1 − β₁ᵗ), 1 / √(1 − β₂ᵗ)

  void update(float* parameter, float* m, float* v, const float* gradient, int64_t count) const {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      Vector g = load(gradient + i), mean = load(m + i), square = load(v + i);
      mean += weight1 * (g - mean);
      square = beta2 * square + weight2 * g * g;
      store(m + i, mean);
      store(v + i, square);
      Vector direction = adam_direction(mean, square, splat(inverse_correction), splat(epsilon));
      store(parameter + i, load(parameter + i) - step_size * direction);
    }
    for (; i < count; ++i) {
      m[i] += weight1 * (gradient[i] - m[i]);
      v[i] = beta2 * v[i] + weight2 * gradient[i] * gradient[i];
      parameter[i] -= step_size * m[i] / (std::sqrt(v[i]) * inverse_correction + epsilon);
    }
  }
};

Adam adam_of_step(double learning_rate, double beta1, double beta2, double epsilon, double step) {
  return {(float)(1 - beta1), (float)beta2, (float)(1 - beta2), (float)epsilon,
          (float)(learning_rate / (1 - std::pow(beta1, step))), (float)(1 / std::sqrt(1 - std::pow(beta2, step)))};
}

// Rows as panels of columns: to[panel][input][column]; missing rows are zero.
void pack_columns(const float* rows, int64_t num_rows, int64_t inputs, float* to, int64_t panel) {
  float* out = to + panel * inputs * kPanel;
  int64_t first = panel * kPanel, count = std::min<int64_t>(kPanel, num_rows - first);
  for (int64_t column = 0; column < kPanel; ++column)
    for (int64_t input = 0; input < inputs; ++input)
      out[input * kPanel + column] = column < count ? rows[(first + column) * inputs + input] : 0.0f;
}

// Rows as panels of inputs: to[panel][row][input of the panel]; missing rows and inputs are zero.
void pack_inputs(const float* rows, int64_t num_rows, int64_t padded_rows, int64_t inputs, float* to) {
  for (int64_t start = 0; start < inputs; start += kPanel)
    for (int64_t row = 0; row < padded_rows; ++row)
      for (int64_t input = start; input < start + kPanel; ++input)
        *to++ = row < num_rows && input < inputs ? rows[row * inputs + input] : 0.0f;
}

// Outputs of ``count`` units for all panels into hidden[unit][B], and their share of the logits[output][B].
// ``near``: N · kTile floats for the units' output weights, whose rows lie too far apart to share the cache.
void forward_tile(const Network& net, int64_t unit, int64_t count, const float* packed, int64_t padded_rows,
                  float* near, float* hidden, float* logits) {
  for (int64_t output = 0; output < net.outputs; ++output)
    std::copy_n(net.weight2 + output * net.hidden + unit, count, near + output * kTile);
  for (int64_t start = 0; start < padded_rows; start += kPanel) {
    product<2>(count, net.weight1 + unit * net.inputs, net.inputs, 1, packed + start * net.inputs, kPanel,
               hidden + start, padded_rows, net.inputs, false);
    for (int64_t u = 0; u < count; ++u)
      for (int64_t column = start; column < start + kPanel; column += kLanes) {
        Vector value = load(hidden + u * padded_rows + column) + net.bias1[unit + u];
        store(hidden + u * padded_rows + column, value > 0.0f ? value : kSlope * value);
      }
    product<2>(net.outputs, near, kTile, 1, hidden + start, padded_rows, logits + start, padded_rows, count, true);
  }
}

// gradient[unit][B] = slope(hidden) · Σ_n weight2[n][unit] · logit_gradient[n][B]
void backward_tile(const Network& net, int64_t unit, int64_t count, const float* logit_gradient, int64_t padded_rows,
                   const float* hidden, float* gradient) {
  for (int64_t start = 0; start < padded_rows; start += kPanel)
    product<2>(count, net.weight2 + unit, 1, net.hidden, logit_gradient + start, padded_rows, gradient + start,
               padded_rows, net.outputs, false);
  for (int64_t i = 0; i < count * padded_rows; i += kLanes) {
    Vector value = load(gradient + i);
    store(gradient + i, load(hidden + i) > 0.0f ? value : kSlope * value);
  }
}

struct Range {
  int64_t first, last;
};

Range units_of(int64_t hidden, int thread, int threads) {
  int64_t per_thread = padded((hidden + threads - 1) / threads, kTile);
  return {std::min(hidden, thread * per_thread), std::min(hidden, (thread + 1) * per_thread)};
}

// Numbers below 1e-38 cost a hundred times the others and mean nothing here.
struct FlushDenormals {
#if defined(__SSE__)
  unsigned before = _mm_getcsr();
  FlushDenormals() { _mm_setcsr(before | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before); }
#endif
};

}  // namespace
