// Layers of a whole batch by panels of units: packing, and what happens to a panel of sums.

#pragma once

#include "tiles.h"

#include <cstring>

namespace {

// to[column][row] = from[row][column] of kLanes by kLanes, by swapping ever smaller squares.
inline __attribute__((always_inline)) void transpose_square(const float* from, int64_t stride, float* to,
                                                            int64_t to_stride) {
  typedef int32_t Lanes __attribute__((vector_size(kLanes * 4)));
  Vector rows[kLanes];
#pragma GCC unroll 16
  for (int row = 0; row < kLanes; ++row) rows[row] = load(from + row * stride);
#pragma GCC unroll 4
  for (int size = kLanes / 2; size > 0; size /= 2) {
    Lanes lower, upper;
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane) {
      lower[lane] = lane & size ? kLanes + lane - size : lane;
      upper[lane] = lane & size ? kLanes + lane : lane + size;
    }
#pragma GCC unroll 16
    for (int row = 0; row < kLanes; ++row) {
      if (row & size) continue;
      const Vector a = rows[row], b = rows[row + size];
      rows[row] = __builtin_shuffle(a, b, lower);
      rows[row + size] = __builtin_shuffle(a, b, upper);
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < kLanes; ++row) store(to + row * to_stride, rows[row]);
}

constexpr int kAhead = 16;  // rows; their lines are too far apart for the processor to foresee them

// One panel of a layer's weights as [input][unit of the panel]; missing units are zero.
void pack_panel(const float* weight, int64_t inputs, int64_t units, int64_t first, int64_t width, float* to) {
  for (int64_t input = 0; input < inputs; ++input, to += kPanel) {
    const float* from = weight + input * units + first;
    if (input + kAhead < inputs) __builtin_prefetch(from + kAhead * units);
    if (width == kPanel) {
      store(to, load(from));
      store(to + kLanes, load(from + kLanes));
    } else {
      for (int64_t unit = 0; unit < kPanel; ++unit) to[unit] = unit < width ? from[unit] : 0.0f;
    }
  }
}

// ``width`` rows as [column][row of the panel]; missing rows are zero.
void pack_transposed(const float* rows, int64_t columns, int64_t stride, int64_t width, float* to) {
  int64_t column = 0;
  for (; width == kPanel && column + kLanes <= columns; column += kLanes)
    for (int half = 0; half < 2; ++half)
      transpose_square(rows + half * kLanes * stride + column, stride, to + column * kPanel + half * kLanes, kPanel);
  for (; column < columns; ++column)
    for (int64_t row = 0; row < kPanel; ++row)
      to[column * kPanel + row] = row < width ? rows[row * stride + column] : 0.0f;
}

// One strip of inputs as [row][input of the strip]; what lies in place of missing inputs is never read.
void pack_strip(const float* from, int64_t inputs, int64_t stride, int64_t rows, int64_t strip, float* to) {
  const int64_t first = strip * kRows, count = std::min<int64_t>(kRows, inputs - first);
  to += strip * rows * kRows;
  if (count == kRows) {
    for (int64_t row = 0; row < rows; ++row) std::memcpy(to + row * kRows, from + row * stride + first, kRows * 4);
    return;
  }
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t input = 0; input < count; ++input) to[row * kRows + input] = from[row * stride + first + input];
}

inline float total(Vector value) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  const __m256 all = (__m256)value;
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#endif
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += value[lane];
  return sum;
}

inline Vector activated(Vector value) { return value > 0.0f ? value : kSlope * value; }

// LeakyReLU(panel + bias) into the columns of ``to``; with ``weight`` also its product with the value layer's weights.
void finish_panel(float* panel, const float* bias_in, int64_t width, int64_t rows, float* to, int64_t stride,
                  const float* weight_in, float* partial) {
  alignas(64) float bias[kPanel] = {}, weight[kPanel] = {};
  std::copy(bias_in, bias_in + width, bias);
  if (weight_in != nullptr) std::copy(weight_in, weight_in + width, weight);
  for (int64_t row = 0; row < rows; ++row, panel += kPanel, to += stride) {
    Vector low = activated(load(panel) + load(bias)), high = activated(load(panel + kLanes) + load(bias + kLanes));
    if (width == kPanel) {
      store(to, low);
      store(to + kLanes, high);
    } else {
      store(panel, low);
      store(panel + kLanes, high);
      std::copy(panel, panel + width, to);
    }
    if (partial != nullptr) partial[row] = total(low * load(weight) + high * load(weight + kLanes));
  }
}

// panel[row][unit] ·= slope of the activation that gave ``active``; ``sums``: of the panel's columns.
void back_through_activation(float* panel, int64_t rows, const float* active, int64_t stride, float* sums) {
  Vector sum[2] = {};
  for (int64_t row = 0; row < rows; ++row, panel += kPanel, active += stride)
    for (int half = 0; half < 2; ++half) {
      const Vector slope = load(active + half * kLanes) > 0.0f ? splat(1.0f) : splat(kSlope);
      const Vector back = load(panel + half * kLanes) * slope;
      store(panel + half * kLanes, back);
      sum[half] += back;
    }
  for (int half = 0; half < 2; ++half) store(sums + half * kLanes, sum[half]);
}

// Adam on a panel's columns of a layer: the gradient's strips are products of packed inputs and the panel of ``right``.
void step_layer(const Adam& adam, const float* strips, int64_t inputs, int64_t rows, const float* right,
                float* gradient, float* weight, float* m, float* v, int64_t units, int64_t width) {
  for (int64_t first = 0; first < inputs; first += kRows) {
    const int64_t count = std::min<int64_t>(kRows, inputs - first);
    // A line per row, a row apart: no processor foresees that, so the next strip is asked for here.
    for (int64_t row = first + kRows; row < std::min<int64_t>(inputs, first + 2 * kRows); ++row)
      for (float* array : {weight, m, v}) fetch(array + row * units, width);
    product<2>(count, strips + first * rows, 1, kRows, right, kPanel, gradient, kPanel, rows, false);
    for (int64_t row = 0; row < count; ++row) {
      const int64_t at = (first + row) * units;
      adam.update(weight + at, m + at, v + at, gradient + row * kPanel, width);
    }
  }
}

}  // namespace
