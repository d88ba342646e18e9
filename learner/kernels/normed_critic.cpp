// Critics of BatchNorm layers on a CPU: outputs, their gradient to some inputs, and one Adam step.
//
// E networks of linear, BatchNorm and ReLU, L times, and a linear head; weights as torch.nn.Linear keeps them, (units,
// inputs). A panel of units holds all rows, so that its batch statistics, forward and back, need nobody else. Sums
// depend on no thread: each panel is one thread's alone. If asked, products of the hidden layers are of numbers rounded
// to bfloat16; sums, statistics, weights and moments stay in float32.
//
// Axis legend: E critics, B rows, R rows with outputs, I inputs, H units, L hidden layers, K outputs of a head.

#include "normed.h"

extern "C" {

// Floats of what a forward pass keeps, and of scratch memory for every call.
int64_t normed_critic_kept(int64_t inputs, int64_t hidden, int64_t outputs, int64_t layers, int64_t critics,
                           int64_t rows, int64_t is_short) {
  return Sizes{inputs, hidden, outputs, layers, critics, rows, is_short}.kept();
}

int64_t normed_critic_scratch(int64_t inputs, int64_t hidden, int64_t outputs, int64_t layers, int64_t critics,
                              int64_t rows, int64_t is_short, int threads) {
  const Sizes s{inputs, hidden, outputs, layers, critics, rows, is_short};
  return critics * s.strips() + threads * s.own();
}

// Whether this process may use hardware for products of bfloat16 numbers.
int multiplies_bfloat16() { return tiles_are_there(); }

// Outputs (E, R, K) of rows ``first_row`` and following. ``running``: mean and variance of each critic's layers. With
// ``momentum`` the statistics are the batch's and move the running ones; without (0) they are the running ones.
void normed_critic_forward(int64_t inputs, int64_t hidden, int64_t outputs, int64_t layers, int64_t critics,
                           int64_t rows, int64_t is_short, float* const* arrays, float* const* running, double momentum,
                           double epsilon, const float* input, int64_t first_row, int64_t output_rows, int threads,
                           float* kept, float* scratch, float* result) {
  const Sizes s{inputs, hidden, outputs, layers, critics, rows, is_short};
  const int64_t stride = s.stride(), narrow = short_stride(hidden);
#pragma omp parallel num_threads(threads)
  {
    FlushDenormals flush;
    const Tiles tiles(is_short);
    const Room room(scratch, s);
    float *const packed = room.packed, *const panel = room.panel;
    if (is_short) {
      const int64_t wide = short_stride(inputs);
#pragma omp for schedule(static)
      for (int64_t row = 0; row < rows; ++row)
        round_row(input + row * inputs, inputs, ShortRows::input(kept, s) + row * wide, wide);
    }
    for (int64_t layer = 0; layer < layers; ++layer) {
      const int64_t depth = s.depth(layer);
#pragma omp for schedule(static)
      for (int64_t item = 0; item < critics * s.panels(); ++item) {
        const int64_t critic = item / s.panels(), first = item % s.panels() * kPanel;
        const int64_t width = Sizes::width(hidden, item % s.panels());
        const Arrays net(arrays, s, critic);
        const Kept keeps(kept, s, critic, layer);
        const float* const weight = net.weight(layer) + first * depth;
        if (is_short) {
          const ShortRows from(kept, s, critic, layer);
          pairs_of_columns(weight, depth, depth, width, room.pairs());
          tile_product(rows, from.at, from.stride, room.pairs(), panel, depth, false);
        } else {
          const float* const from = layer == 0 ? input : Kept(kept, s, critic, layer - 1).active;
          pack_transposed(weight, depth, depth, width, packed);
          product<2>(rows, from, layer == 0 ? inputs : stride, 1, packed, kPanel, panel, kPanel, depth, false);
        }
        float* const running_mean = running[2 * (critic * layers + layer)] + first;
        float* const running_variance = running[2 * (critic * layers + layer) + 1] + first;
        Half mean, variance;
        if (momentum > 0) {
          column_moments(panel, rows, mean, variance);
          take_in(running_mean, mean, 1.0f, (float)momentum, width);
          take_in(running_variance, variance, (float)rows / (float)(rows - 1), (float)momentum, width);
        } else {
          mean = load_units(running_mean, width), variance = load_units(running_variance, width);
        }
        const Half gain = load_units(net.gain(layer) + first, width);
        const Half shift = load_units(net.shift(layer) + first, width);
        Half scale;
        halves([&](int h) {
          for (int lane = 0; lane < kLanes; ++lane)
            scale.of[h][lane] = 1.0f / std::sqrt(variance.of[h][lane] + (float)epsilon);
          store(keeps.scale + first + h * kLanes, scale.of[h]);
        });
        for (int64_t row = 0; row < rows; ++row)
          halves([&](int h) {
            const int64_t at = row * stride + first + h * kLanes;
            const Vector normed = (load(panel + row * kPanel + h * kLanes) - mean.of[h]) * scale.of[h];
            const Vector sum = normed * gain.of[h] + shift.of[h];
            store(keeps.normed + at, normed);
            store(keeps.active + at, sum > 0.0f ? sum : Vector{});
          });
        if (is_short) round_panel(keeps.active + first, stride, rows, keeps.short_active + first, narrow);
      }
    }
    const int64_t head_panels = Sizes::panels_of(outputs);
#pragma omp for schedule(static)
    for (int64_t item = 0; item < critics * head_panels; ++item) {
      const int64_t critic = item / head_panels, first = item % head_panels * kPanel;
      const int64_t width = Sizes::width(outputs, item % head_panels);
      const Arrays net(arrays, s, critic);
      pack_transposed(net.head() + first * hidden, hidden, hidden, width, packed);
      product<2>(output_rows, Kept(kept, s, critic, layers - 1).active + first_row * stride, stride, 1, packed, kPanel,
                 panel, kPanel, hidden, false);
      float* to = result + critic * output_rows * outputs + first;
      for (int64_t row = 0; row < output_rows; ++row, to += outputs)
        for (int64_t unit = 0; unit < width; ++unit) to[unit] = panel[row * kPanel + unit] + net.bias()[first + unit];
    }
  }
}

// One Adam step of all critics, given the gradient (E, R, K) of the outputs that ``kept`` is of; then, if asked, the
// rows of the hidden layers are put back to length 1. ``arrays``: parameters, first moments, second moments.
void normed_critic_step(int64_t inputs, int64_t hidden, int64_t outputs, int64_t layers, int64_t critics, int64_t rows,
                        int64_t is_short, float* const* arrays, double learning_rate, double beta1, double beta2,
                        double epsilon, double steps_before, int has_unit_rows, const float* input, int64_t first_row,
                        int64_t output_rows, int threads, float* kept, float* scratch, const float* output_gradient) {
  const Sizes s{inputs, hidden, outputs, layers, critics, rows, is_short};
  const int64_t stride = s.stride(), narrow = short_stride(hidden), count = Arrays::count(s);
  const Adam adam = adam_of_step(learning_rate, beta1, beta2, epsilon, steps_before + 1);
#pragma omp parallel num_threads(threads)
  {
    FlushDenormals flush;
    const Tiles tiles(is_short);
    const Room room(scratch, s);
    float *const packed = room.packed, *const panel = room.panel;
    // From the head down: back to the layer before by the weights as they were, then the weights move.
    for (int64_t layer = layers; layer >= 0; --layer) {
      const bool is_head = layer == layers, by_tiles = is_short && !is_head;
      const int64_t units = is_head ? outputs : hidden, units_stride = is_head ? outputs : stride;
      const int64_t depth = s.depth(layer), input_stride = layer == 0 ? inputs : stride;
      const int64_t begin = is_head ? first_row : 0, used_rows = is_head ? output_rows : rows;
      const int64_t strip = by_tiles ? kStrip : kRows;
      const int64_t input_panels = Sizes::panels_of(depth), strips = (units + strip - 1) / strip;
      auto gradients = [&](int64_t critic) -> const float* {
        return is_head ? output_gradient + critic * output_rows * outputs : Kept(kept, s, critic, layer).normed;
      };
      auto weights = [&](const Arrays& of) { return is_head ? of.head() : of.weight(layer); };
#pragma omp for schedule(static) nowait
      for (int64_t item = 0; item < critics * strips; ++item) {
        const int64_t critic = item / strips, first = item % strips * kStrip;
        float* const to = scratch + critic * s.strips();
        if (by_tiles)
          columns_as_rows(Kept(kept, s, critic, layer).short_gradient + first, rows, narrow,
                          reinterpret_cast<uint16_t*>(to) + first * padded(rows, kChunk));
        else
          pack_strip(gradients(critic), units, units_stride, used_rows, item % strips, to);
      }
      if (layer > 0) {
#pragma omp for schedule(static) nowait
        for (int64_t item = 0; item < critics * input_panels; ++item) {
          const int64_t critic = item / input_panels, first = item % input_panels * kPanel;
          const int64_t width = Sizes::width(depth, item % input_panels);
          const Arrays net(arrays, s, critic), m(arrays + count, s, critic), v(arrays + 2 * count, s, critic);
          if (by_tiles) {
            pairs_of_rows(weights(net) + first, units, depth, width, room.pairs());
            tile_product(rows, Kept(kept, s, critic, layer).short_gradient, narrow, room.pairs(), panel, units, false);
          } else {
            pack_panel(weights(net), units, depth, first, width, packed);
            std::fill(panel, panel + begin * kPanel, 0.0f);
            product<2>(used_rows, gradients(critic), units_stride, 1, packed, kPanel, panel + begin * kPanel, kPanel,
                       units, false);
            std::fill(panel + (begin + used_rows) * kPanel, panel + rows * kPanel, 0.0f);
          }
          back_through_norm(panel, Kept(kept, s, critic, layer - 1), first, s, adam, net, m, v, layer - 1, width,
                            room.sums);
        }
      }
#pragma omp barrier
#pragma omp for schedule(static)
      for (int64_t item = 0; item < critics * input_panels; ++item) {
        const int64_t critic = item / input_panels, first = item % input_panels * kPanel;
        const int64_t width = Sizes::width(depth, item % input_panels);
        const Arrays net(arrays, s, critic), m(arrays + count, s, critic), v(arrays + 2 * count, s, critic);
        const float* const strips_of = scratch + critic * s.strips();
        float *const weight = weights(net) + first, *const mean = weights(m) + first;
        float* const square = weights(v) + first;
        if (by_tiles) {
          const ShortRows from(kept, s, critic, layer);
          pairs_of_rows(from.at + first, rows, from.stride, kPanel, room.pairs());
          step_layer_by_tiles(adam, reinterpret_cast<const uint16_t*>(strips_of), units, rows, room.pairs(),
                              room.gradient, weight, mean, square, depth, width);
        } else {
          const float* const from = layer == 0 ? input : Kept(kept, s, critic, layer - 1).active;
          copy_panel(from + begin * input_stride + first, input_stride, used_rows, width, panel);
          step_layer(adam, strips_of, units, used_rows, panel, room.gradient, weight, mean, square, depth, width);
        }
        if (is_head && first == 0)
          for (int64_t unit = 0; unit < outputs; ++unit) {
            float sum = 0;
            for (int64_t row = 0; row < output_rows; ++row) sum += gradients(critic)[row * outputs + unit];
            adam.update(net.bias() + unit, m.bias() + unit, v.bias() + unit, &sum, 1);
          }
      }
      if (has_unit_rows && !is_head) {
#pragma omp for schedule(static) nowait
        for (int64_t item = 0; item < critics * hidden; ++item) {
          float* const row = Arrays(arrays, s, item / hidden).weight(layer) + item % hidden * depth;
          Vector squares = {};
          int64_t i = 0;
          for (; i + kLanes <= depth; i += kLanes) squares += load(row + i) * load(row + i);
          float sum = total(squares);
          for (; i < depth; ++i) sum += row[i] * row[i];
          const float factor = 1.0f / std::max(std::sqrt(sum), 1e-8f);
          for (i = 0; i < depth; ++i) row[i] *= factor;
        }
      }
    }
  }
}

// Gradient (B, C) to the last C inputs, given that (E, B, K) of the outputs which ``kept`` is of, by fixed statistics.
void normed_critic_input_gradient(int64_t inputs, int64_t hidden, int64_t outputs, int64_t layers, int64_t critics,
                                  int64_t rows, int64_t is_short, float* const* arrays, int64_t columns, int threads,
                                  float* kept, float* scratch, const float* output_gradient, float* result) {
  const Sizes s{inputs, hidden, outputs, layers, critics, rows, is_short};
  const int64_t stride = s.stride(), narrow = short_stride(hidden);
#pragma omp parallel num_threads(threads)
  {
    FlushDenormals flush;
    const Tiles tiles(is_short);
    const Room room(scratch, s);
    float *const packed = room.packed, *const panel = room.panel;
    for (int64_t layer = layers; layer > 0; --layer) {
      const bool is_head = layer == layers;
      const int64_t units = is_head ? outputs : hidden;
#pragma omp for schedule(static)
      for (int64_t item = 0; item < critics * s.panels(); ++item) {
        const int64_t critic = item / s.panels(), first = item % s.panels() * kPanel;
        const int64_t width = Sizes::width(hidden, item % s.panels());
        const Arrays net(arrays, s, critic);
        const Kept below(kept, s, critic, layer - 1);
        if (is_short && !is_head) {
          pairs_of_rows(net.weight(layer) + first, units, hidden, width, room.pairs());
          tile_product(rows, Kept(kept, s, critic, layer).short_gradient, narrow, room.pairs(), panel, units, false);
        } else {
          const float* const from =
              is_head ? output_gradient + critic * rows * outputs : Kept(kept, s, critic, layer).normed;
          pack_panel(is_head ? net.head() : net.weight(layer), units, hidden, first, width, packed);
          product<2>(rows, from, is_head ? outputs : stride, 1, packed, kPanel, panel, kPanel, units, false);
        }
        const Half gain = load_units(net.gain(layer - 1) + first, width);
        Half factor;
        halves([&](int h) { factor.of[h] = gain.of[h] * load(below.scale + first + h * kLanes); });
        for (int64_t row = 0; row < rows; ++row)
          halves([&](int h) {
            const int64_t at = row * stride + first + h * kLanes;
            const Vector back = factor.of[h] * load(panel + row * kPanel + h * kLanes);
            float* const to = is_short ? panel + row * kPanel + h * kLanes : below.normed + at;
            store(to, load(below.active + at) > 0.0f ? back : Vector{});
          });
        if (is_short) round_panel(panel, kPanel, rows, below.short_gradient + first, narrow);
      }
    }
    const int64_t unit = is_short ? kStrip : kRows;
    const int64_t share = padded((rows + omp_get_num_threads() - 1) / omp_get_num_threads(), unit);
    const int64_t begin = std::min(rows, omp_get_thread_num() * share), end = std::min(rows, begin + share);
    for (int64_t first = 0; first < columns && begin < end; first += kPanel) {
      const int64_t width = std::min<int64_t>(kPanel, columns - first);
      for (int64_t critic = 0; critic < critics; ++critic) {
        const float* const weight = Arrays(arrays, s, critic).weight(0);
        const Kept keeps(kept, s, critic, 0);
        if (is_short) {
          pairs_of_rows(weight + inputs - columns + first, hidden, inputs, width, room.pairs());
          tile_product(end - begin, keeps.short_gradient + begin * narrow, narrow, room.pairs(), panel, hidden,
                       critic > 0);
        } else {
          pack_panel(weight, hidden, inputs, inputs - columns + first, width, packed);
          product<2>(end - begin, keeps.normed + begin * stride, stride, 1, packed, kPanel, panel, kPanel, hidden,
                     critic > 0);
        }
      }
      for (int64_t row = begin; row < end; ++row) {
        const float* const from = panel + (row - begin) * kPanel;
        std::copy(from, from + width, result + row * columns + first);
      }
    }
  }
}

}  // extern "C"
