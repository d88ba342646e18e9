// The surrogate in B2 and B3 on a CPU: expected bits of a batch, and the gradient with respect to its rows.
//
// The hidden layer never leaves the cache: a tile of it goes straight into the logits, and only the signs are kept.

#include "tiles.h"

namespace {

// What the gradient's pass works on together. Its sums pass through the cache once per ``kBackUnits``, so more units
// mean less traffic, and ``kBackInputs`` columns of their weights stay in the first-level cache.
#if defined(__AVX512F__)
constexpr int kBackUnits = kTile, kBackInputs = 1 << 20;
#else
constexpr int kBackUnits = 4 * kTile, kBackInputs = 8 * kRows;
#endif

int64_t own_scratch(int64_t inputs, int64_t outputs, int64_t b) {
  return padded(kBackUnits * b + std::max(inputs, outputs) * b + outputs * kTile, 64);
}

}  // namespace

extern "C" {

// Expected bits of ``rows`` rows, and for ``surrogate_input_gradient`` the signs of the hidden units, one uint16 per
// vector. Scratch: ``surrogate_pass_scratch`` floats.
int64_t surrogate_pass_scratch(int64_t inputs, int64_t outputs, int64_t rows, int threads) {
  const int64_t b = padded(rows, kPanel);
  return b * (inputs + outputs) + threads * own_scratch(inputs, outputs, b);
}

int64_t surrogate_num_signs(int64_t hidden, int64_t rows) { return hidden * padded(rows, kPanel) / kLanes; }

void surrogate_forward(int64_t inputs, int64_t hidden, int64_t outputs, float* const* arrays, const float* rows_in,
                       int64_t rows, int threads, float* scratch, float* bits, uint16_t* signs) {
  const Network net{inputs, hidden, outputs, arrays[0], arrays[1], arrays[2], arrays[3]};
  const int64_t b = padded(rows, kPanel), panels = b / kPanel;
  float* const packed = scratch;
  float* const private_scratch = packed + b * (inputs + outputs);
  const int64_t own = own_scratch(inputs, outputs, b);
#pragma omp parallel num_threads(threads)
  {
    FlushDenormals flush;
    const int thread = omp_get_thread_num(), present = omp_get_num_threads();
    const Range units = units_of(hidden, thread, present);
    float* const logits = private_scratch + thread * own;
    float* const active = logits + outputs * b;
    float* const near = active + kTile * b;
    for (int64_t panel = thread; panel < panels; panel += present) pack_columns(rows_in, rows, inputs, packed, panel);
    std::fill(logits, logits + outputs * b, 0.0f);
#pragma omp barrier
    for (int64_t unit = units.first; unit < units.last; unit += kTile) {
      const int64_t count = std::min<int64_t>(kTile, units.last - unit);
      forward_tile(net, unit, count, packed, b, near, active, logits);
      if (signs != nullptr)
        for (int64_t i = 0; i < count * b; i += kLanes) signs[(unit * b + i) / kLanes] = positive(load(active + i));
    }
#pragma omp barrier
    for (int64_t panel = thread; panel < panels; panel += present)
      for (int64_t row = panel * kPanel; row < std::min(rows, (panel + 1) * kPanel); ++row)
        for (int64_t output = 0; output < outputs; ++output) {
          float logit = net.bias2[output];
          for (int peer = 0; peer < present; ++peer) logit += private_scratch[peer * own + output * b + row];
          const float decay = std::exp(-std::fabs(logit));
          bits[row * outputs + output] = (logit >= 0 ? 1.0f : decay) / (1 + decay);
        }
  }
}

// Gradient with respect to the rows, given that of the expected bits.
void surrogate_input_gradient(int64_t inputs, int64_t hidden, int64_t outputs, float* const* arrays, int64_t rows,
                              int threads, float* scratch, const float* bits, const uint16_t* signs,
                              const float* bits_gradient, float* rows_gradient) {
  const Network net{inputs, hidden, outputs, arrays[0], arrays[1], arrays[2], arrays[3]};
  const int64_t b = padded(rows, kPanel), panels = b / kPanel;
  float* const logit_gradient = scratch;
  float* const private_scratch = scratch + b * (inputs + outputs);
  const int64_t own = own_scratch(inputs, outputs, b);
  for (int64_t output = 0; output < outputs; ++output)
    for (int64_t row = 0; row < b; ++row) {
      const int64_t at = row * outputs + output;
      logit_gradient[output * b + row] = row < rows ? bits_gradient[at] * bits[at] * (1 - bits[at]) : 0;
    }
#pragma omp parallel num_threads(threads)
  {
    FlushDenormals flush;
    const int thread = omp_get_thread_num(), present = omp_get_num_threads();
    const Range units = units_of(hidden, thread, present);
    float* const sums = private_scratch + thread * own;  // [panel][input][column]
    float* const gradient = sums + inputs * b;
    std::fill(sums, sums + inputs * b, 0.0f);
    for (int64_t unit = units.first; unit < units.last; unit += kBackUnits) {
      const int64_t count = std::min<int64_t>(kBackUnits, units.last - unit);
      for (int64_t panel = 0; panel < panels; ++panel) {
        float* const of_panel = gradient + panel * count * kPanel;
        product<2>(count, net.weight2 + unit, 1, hidden, logit_gradient + panel * kPanel, b, of_panel, kPanel, outputs,
                   false);
        for (int64_t i = 0; i < count * kPanel; i += kLanes) {
          const int64_t at = (unit + i / kPanel) * b + panel * kPanel + i % kPanel;
          store(of_panel + i, load(of_panel + i) * slopes(signs[at / kLanes]));
        }
      }
      for (int64_t input = 0; input < inputs; input += kBackInputs)
        for (int64_t panel = 0; panel < panels; ++panel)
          product<2>(std::min<int64_t>(kBackInputs, inputs - input), net.weight1 + unit * inputs + input, 1, inputs,
                     gradient + panel * count * kPanel, kPanel, sums + (panel * inputs + input) * kPanel, kPanel,
                     count, true);
    }
#pragma omp barrier
    for (int64_t panel = thread; panel < panels; panel += present)
      for (int64_t row = panel * kPanel; row < std::min(rows, (panel + 1) * kPanel); ++row)
        for (int64_t input = 0; input < inputs; ++input) {
          float total = 0;
          for (int peer = 0; peer < present; ++peer)
            total += private_scratch[peer * own + (panel * inputs + input) * kPanel + row - panel * kPanel];
          rows_gradient[row * inputs + input] = total;
        }
  }
}

}  // extern "C"
