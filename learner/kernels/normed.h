// BatchNorm critics by panels of units: sizes, where everything lies, batch statistics forward and back.
//
// Axis legend: as in normed_critic.cpp.

#pragma once

#include "bfloat16.h"

namespace {

struct Sizes {
  int64_t inputs, hidden, outputs, layers, critics, rows;
  int64_t is_short;  // whether products of the hidden layers are of bfloat16 numbers; those of the head never are

  int64_t panels() const { return panels_of(hidden); }
  int64_t depth(int64_t layer) const { return layer == 0 ? inputs : hidden; }
  // An odd number of lines: a panel's row is one of them, and rows do not meet in few sets of the cache.
  int64_t stride() const { return (padded(panels() * kPanel, kLine) / kLine | 1) * kLine; }
  int64_t features() const { return rows * stride(); }
  int64_t short_features() const { return is_short ? padded(rows, kStrip) * short_stride(hidden) / 2 : 0; }
  int64_t short_input() const { return is_short ? padded(rows, kStrip) * short_stride(inputs) / 2 : 0; }
  int64_t layer_kept() const { return 2 * features() + padded(panels() * kPanel, kLine) + 2 * short_features(); }
  int64_t kept() const { return critics * layers * layer_kept() + short_input(); }
  int64_t strips() const {  // of one critic
    const int64_t shorts = is_short ? padded(hidden, kStrip) * padded(rows, kStrip) / 2 : 0;
    return padded(std::max(padded(std::max(hidden, outputs), kRows) * rows, shorts), kLine);
  }
  int64_t packed() const { return padded(std::max({inputs, hidden, outputs, rows}), kChunk) * kPanel; }
  int64_t panel() const { return padded(rows, kStrip) * kPanel; }
  int64_t own() const { return padded(packed() + panel() + (kStrip + 2) * kPanel, kLine); }
  static int64_t panels_of(int64_t units) { return (units + kPanel - 1) / kPanel; }
  static int64_t width(int64_t units, int64_t panel) { return std::min<int64_t>(kPanel, units - panel * kPanel); }
};

// A thread's part of the scratch memory: packed weights, a panel of all rows, and what a step needs besides.
struct Room {
  float *packed, *panel, *gradient, *sums;

  Room(float* scratch, const Sizes& s)
      : packed(scratch + s.critics * s.strips() + omp_get_thread_num() * s.own()), panel(packed + s.packed()),
        gradient(panel + s.panel()), sums(gradient + kStrip * kPanel) {}

  uint32_t* pairs() const { return reinterpret_cast<uint32_t*>(packed); }
};

// One critic's parameters, or their moments: of each layer weight (H, I), gain (H), shift (H); of the head weight
// (K, H), bias (K).
struct Arrays {
  float* const* arrays;
  int64_t layers;

  Arrays(float* const* all, const Sizes& s, int64_t critic)
      : arrays(all + critic * (3 * s.layers + 2)), layers(s.layers) {}
  float* weight(int64_t layer) const { return arrays[3 * layer]; }
  float* gain(int64_t layer) const { return arrays[3 * layer + 1]; }
  float* shift(int64_t layer) const { return arrays[3 * layer + 2]; }
  float* head() const { return arrays[3 * layers]; }
  float* bias() const { return arrays[3 * layers + 1]; }
  static int64_t count(const Sizes& s) { return s.critics * (3 * s.layers + 2); }
};

// What the forward pass leaves of one critic's layer.
struct Kept {
  float *active;  // (B, H): what the next layer reads
  float *normed;  // (B, H): before gain and shift; later the gradient of the layer's sums
  float *scale;   // (H): 1 / standard deviation
  uint16_t *short_active, *short_gradient;  // (B, H): the first, and that gradient, where products are of bfloat16

  Kept(float* kept, const Sizes& s, int64_t critic, int64_t layer) {
    active = kept + (critic * s.layers + layer) * s.layer_kept();
    normed = active + s.features();
    scale = normed + s.features();
    short_active = reinterpret_cast<uint16_t*>(scale + padded(s.panels() * kPanel, kLine));
    short_gradient = short_active + 2 * s.short_features();
  }
};

// Rows that a layer's product reads, as bfloat16.
struct ShortRows {
  const uint16_t* at;
  int64_t stride;

  ShortRows(float* kept, const Sizes& s, int64_t critic, int64_t layer)
      : at(layer == 0 ? input(kept, s) : Kept(kept, s, critic, layer - 1).short_active),
        stride(short_stride(s.depth(layer))) {}
  static uint16_t* input(float* kept, const Sizes& s) {
    return reinterpret_cast<uint16_t*>(kept + s.critics * s.layers * s.layer_kept());
  }
};

// The same operation on both vectors of a panel's row.
template <typename Work>
inline __attribute__((always_inline)) void halves(Work work) {
  work(0), work(1);
}

struct Half {
  Vector of[2] = {};
};

Half load_units(const float* from, int64_t width) {
  alignas(64) float units[kPanel] = {};
  std::copy(from, from + width, units);
  return {{load(units), load(units + kLanes)}};
}

// Mean and variance (over the number of rows) of a panel's columns; two passes, for float32 to its last bits.
void column_moments(const float* panel, int64_t rows, Half& mean, Half& variance) {
  const float share = 1.0f / (float)rows;
  for (int64_t row = 0; row < rows; ++row)
    halves([&](int h) { mean.of[h] += load(panel + row * kPanel + h * kLanes); });
  halves([&](int h) { mean.of[h] *= share; });
  for (int64_t row = 0; row < rows; ++row)
    halves([&](int h) {
      const Vector away = load(panel + row * kPanel + h * kLanes) - mean.of[h];
      variance.of[h] += away * away;
    });
  halves([&](int h) { variance.of[h] *= share; });
}

// running ← (1 − momentum) · running + momentum · batch
void take_in(float* running, const Half& batch, float factor, float momentum, int64_t width) {
  for (int64_t unit = 0; unit < width; ++unit)
    running[unit] += momentum * (factor * batch.of[unit / kLanes][unit % kLanes] - running[unit]);
}

// g, the gradient of a panel of activations, becomes that of the layer's sums, in ``normed``, or rounded in
// ``short_gradient``; BatchNorm's own gradients move gain and shift. ``sums``: room for two rows of a panel.
void back_through_norm(float* panel, const Kept& keeps, int64_t first, const Sizes& s, const Adam& adam,
                       const Arrays& net, const Arrays& m, const Arrays& v, int64_t layer, int64_t width, float* sums) {
  const int64_t stride = s.stride();
  const float share = 1.0f / (float)s.rows;
  const float* active = keeps.active + first;
  float* normed = keeps.normed + first;
  Half shift, gain;
  for (int64_t row = 0; row < s.rows; ++row)
    halves([&](int h) {
      float* const at = panel + row * kPanel + h * kLanes;
      const Vector back = load(active + row * stride + h * kLanes) > 0.0f ? load(at) : Vector{};
      store(at, back);
      shift.of[h] += back;
      gain.of[h] += back * load(normed + row * stride + h * kLanes);
    });
  const Half gains = load_units(net.gain(layer) + first, width);
  Half factor;
  halves([&](int h) {
    factor.of[h] = gains.of[h] * load(keeps.scale + first + h * kLanes);
    store(sums + h * kLanes, gain.of[h]);
    store(sums + kPanel + h * kLanes, shift.of[h]);
    gain.of[h] *= share, shift.of[h] *= share;
  });
  for (int64_t row = 0; row < s.rows; ++row)
    halves([&](int h) {
      float* const at = normed + row * stride + h * kLanes;
      const Vector along = load(panel + row * kPanel + h * kLanes) - shift.of[h] - load(at) * gain.of[h];
      store(s.is_short ? panel + row * kPanel + h * kLanes : at, factor.of[h] * along);
    });
  if (s.is_short) round_panel(panel, kPanel, s.rows, keeps.short_gradient + first, short_stride(s.hidden));
  adam.update(net.gain(layer) + first, m.gain(layer) + first, v.gain(layer) + first, sums, width);
  adam.update(net.shift(layer) + first, m.shift(layer) + first, v.shift(layer) + first, sums + kPanel, width);
}

void copy_panel(const float* from, int64_t stride, int64_t rows, int64_t width, float* panel) {
  for (int64_t row = 0; row < rows; ++row, from += stride, panel += kPanel)
    if (width == kPanel) {
      store(panel, load(from));
      store(panel + kLanes, load(from + kLanes));
    } else {
      std::copy(from, from + width, panel);
    }
}

}  // namespace
