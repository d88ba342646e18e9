// The twin segmented critics on a CPU: values, the first one's gradient to the action, and one Adam step.
//
// Two networks [[O, H], [H + A, H, 1]] with LeakyReLU whose weights lie side by side, (inputs, units) each. Work is split
// into panels of units; a gradient goes from registers through the first-level cache into Adam and is stored nowhere.
// Sums depend on no thread: each panel is one thread's alone, and their values meet in a fixed order.
//
// Axis legend: E critics, B rows, O observation, A action, H units, P panels of units. "Strip": kRows inputs together.

#include "panels.h"

namespace {

struct Sizes {
  int64_t observed, acted, hidden, rows;

  int64_t joint() const { return hidden + acted; }
  int64_t panels() const { return (hidden + kPanel - 1) / kPanel; }
  int64_t width(int64_t panel) const { return std::min<int64_t>(kPanel, hidden - panel * kPanel); }
  // Rows of features that are not a power of two apart, else they would meet in few sets of the cache.
  int64_t joint_stride() const { return padded(joint(), kLanes) + kLanes; }
  int64_t hidden_stride() const { return panels() * kPanel + kLanes; }
  int64_t kept() const { return rows * (joint_stride() + hidden_stride()); }  // of one critic
  int64_t strips(int64_t inputs) const { return (inputs + kRows - 1) / kRows; }
  int64_t packed_strips(int64_t inputs) const { return strips(inputs) * rows * kRows; }
  int64_t own() const {
    return padded((std::max({observed, joint(), hidden}) + rows + kRows + 4) * kPanel, kPanel);
  }
  int64_t shared() const {
    return padded(std::max(packed_strips(observed) + 2 * packed_strips(joint()), 2 * panels() * rows), kPanel);
  }
};

// Parameters of one critic, or their moments: (O, H), (H), (H + A, H), (H), (H), (1).
struct Arrays {
  float *weight1, *bias1, *weight2, *bias2, *weight3, *bias3;

  Arrays(float* const* arrays, const Sizes& s, int64_t critic)
      : weight1(arrays[0] + critic * s.observed * s.hidden), bias1(arrays[1] + critic * s.hidden),
        weight2(arrays[2] + critic * s.joint() * s.hidden), bias2(arrays[3] + critic * s.hidden),
        weight3(arrays[4] + critic * s.hidden), bias3(arrays[5] + critic) {}
};

// What the forward pass leaves of one critic: features beside the action, and the second layer.
struct Kept {
  float *joint, *second;

  Kept(float* kept, const Sizes& s, int64_t critic)
      : joint(kept + critic * s.kept()), second(joint + s.rows * s.joint_stride()) {}
};

}  // namespace

extern "C" {

// Floats of what the forward pass of two critics keeps, and of scratch memory for every call.
int64_t critic_kept(int64_t observed, int64_t acted, int64_t hidden, int64_t rows) {
  return 2 * Sizes{observed, acted, hidden, rows}.kept();
}

int64_t critic_scratch(int64_t observed, int64_t acted, int64_t hidden, int64_t rows, int threads) {
  const Sizes s{observed, acted, hidden, rows};
  return s.shared() + threads * s.own();
}

// Values (E, B) of the first ``critics`` critics. With ``action_gradient`` (B, A) also that of the first one's values,
// after which ``kept`` is of no further use.
void critic_forward(int64_t observed, int64_t acted, int64_t hidden, int64_t critics, float* const* arrays,
                    const float* observation, const float* action, int64_t rows, int threads, float* kept,
                    float* scratch, float* values, float* action_gradient) {
  const Sizes s{observed, acted, hidden, rows};
  const int64_t panels = s.panels();
#pragma omp parallel num_threads(threads)
  {
    FlushDenormals flush;
    float* const packed = scratch + s.shared() + omp_get_thread_num() * s.own();
    float* const panel = packed + std::max({observed, s.joint(), hidden}) * kPanel;
#pragma omp for schedule(static)
    for (int64_t item = 0; item < critics * panels; ++item) {
      const int64_t critic = item / panels, first = item % panels * kPanel, width = s.width(item % panels);
      const Arrays net(arrays, s, critic);
      const Kept keeps(kept, s, critic);
      pack_panel(net.weight1, observed, hidden, first, width, packed);
      product<2>(rows, observation, observed, 1, packed, kPanel, panel, kPanel, observed, false);
      finish_panel(panel, net.bias1 + first, width, rows, keeps.joint + first, s.joint_stride(), nullptr, nullptr);
      if (first == 0)
        for (int64_t row = 0; row < rows; ++row)
          std::copy(action + row * acted, action + (row + 1) * acted, keeps.joint + row * s.joint_stride() + hidden);
    }
#pragma omp for schedule(static)
    for (int64_t item = 0; item < critics * panels; ++item) {
      const int64_t critic = item / panels, first = item % panels * kPanel, width = s.width(item % panels);
      const Arrays net(arrays, s, critic);
      const Kept keeps(kept, s, critic);
      pack_panel(net.weight2, s.joint(), hidden, first, width, packed);
      product<2>(rows, keeps.joint, s.joint_stride(), 1, packed, kPanel, panel, kPanel, s.joint(), false);
      finish_panel(panel, net.bias2 + first, width, rows, keeps.second + first, s.hidden_stride(),
                   net.weight3 + first, scratch + item * rows);
    }
#pragma omp for schedule(static)
    for (int64_t item = 0; item < critics * rows; ++item) {
      const int64_t critic = item / rows, row = item % rows;
      float value = Arrays(arrays, s, critic).bias3[0];
      for (int64_t p = 0; p < panels; ++p) value += scratch[(critic * panels + p) * rows + row];
      values[item] = value;
    }
    if (action_gradient != nullptr) {
      const Arrays net(arrays, s, 0);
      const Kept keeps(kept, s, 0);
#pragma omp for schedule(static)
      for (int64_t row = 0; row < rows; ++row) {
        float* const active = keeps.second + row * s.hidden_stride();
        int64_t unit = 0;
        for (; unit + kLanes <= hidden; unit += kLanes) {
          const Vector weight = load(net.weight3 + unit);
          store(active + unit, load(active + unit) > 0.0f ? weight : kSlope * weight);
        }
        for (; unit < hidden; ++unit)
          active[unit] = active[unit] > 0.0f ? net.weight3[unit] : kSlope * net.weight3[unit];
      }
      const int64_t share = padded((rows + omp_get_num_threads() - 1) / omp_get_num_threads(), kRows);
      const int64_t begin = std::min(rows, omp_get_thread_num() * share), end = std::min(rows, begin + share);
      for (int64_t first = 0; first < acted && begin < end; first += kPanel) {
        const int64_t width = std::min<int64_t>(kPanel, acted - first);
        pack_transposed(net.weight2 + (hidden + first) * hidden, hidden, hidden, width, packed);
        product<2>(end - begin, keeps.second + begin * s.hidden_stride(), s.hidden_stride(), 1, packed, kPanel, panel,
                   kPanel, hidden, false);
        for (int64_t row = begin; row < end; ++row)
          std::copy(panel + (row - begin) * kPanel, panel + (row - begin) * kPanel + width,
                    action_gradient + row * acted + first);
      }
    }
  }
}

// One Adam step of both critics, given the gradient (E, B) of the values that ``kept`` is of.
// ``arrays``: parameters, first moments, second moments.
void critic_step(int64_t observed, int64_t acted, int64_t hidden, float* const* arrays, double learning_rate,
                 double beta1, double beta2, double epsilon, double steps_before, const float* observation,
                 int64_t rows, int threads, float* kept, float* scratch, const float* value_gradient) {
  const Sizes s{observed, acted, hidden, rows};
  const int64_t panels = s.panels();
  const Adam adam = adam_of_step(learning_rate, beta1, beta2, epsilon, steps_before + 1);
  float* const observation_strips = scratch;
  float* const joint_strips = observation_strips + s.packed_strips(observed);
#pragma omp parallel num_threads(threads)
  {
    FlushDenormals flush;
    float* const packed = scratch + s.shared() + omp_get_thread_num() * s.own();
    float* const panel = packed + std::max({observed, s.joint(), hidden}) * kPanel;
    float* const gradient = panel + rows * kPanel;
    float* const sums = gradient + kRows * kPanel;  // of the value layer's weights and of a bias
#pragma omp for schedule(static) nowait
    for (int64_t strip = 0; strip < s.strips(observed); ++strip)
      pack_strip(observation, observed, observed, rows, strip, observation_strips);
    // The second layer's activations become the gradient of its sums.
#pragma omp for schedule(static)
    for (int64_t item = 0; item < 2 * panels; ++item) {
      const int64_t critic = item / panels, first = item % panels * kPanel, width = s.width(item % panels);
      const Arrays net(arrays, s, critic), m(arrays + 6, s, critic), v(arrays + 12, s, critic);
      const float* const by_row = value_gradient + critic * rows;
      float* at = Kept(kept, s, critic).second + first;
      Vector weight_sum[2] = {}, bias_sum[2] = {};
      alignas(64) float weight[kPanel] = {};
      std::copy(net.weight3 + first, net.weight3 + first + width, weight);
      float value_bias = 0;
      for (int64_t row = 0; row < rows; ++row, at += s.hidden_stride()) {
        value_bias += by_row[row];
        for (int half = 0; half < 2; ++half) {
          const Vector active = load(at + half * kLanes), slope = active > 0.0f ? splat(1.0f) : splat(kSlope);
          const Vector back = by_row[row] * load(weight + half * kLanes) * slope;
          weight_sum[half] += by_row[row] * active;
          bias_sum[half] += back;
          store(at + half * kLanes, back);
        }
      }
      for (int half = 0; half < 2; ++half) {
        store(sums + half * kLanes, weight_sum[half]);
        store(sums + kPanel + half * kLanes, bias_sum[half]);
      }
      adam.update(net.weight3 + first, m.weight3 + first, v.weight3 + first, sums, width);
      adam.update(net.bias2 + first, m.bias2 + first, v.bias2 + first, sums + kPanel, width);
      if (first == 0) adam.update(net.bias3, m.bias3, v.bias3, &value_bias, 1);
    }
    // Back through the second layer, as it was, to the features; then the first layer moves.
#pragma omp for schedule(static) nowait
    for (int64_t item = 0; item < 2 * panels; ++item) {
      const int64_t critic = item / panels, first = item % panels * kPanel, width = s.width(item % panels);
      const Arrays net(arrays, s, critic), m(arrays + 6, s, critic), v(arrays + 12, s, critic);
      const Kept keeps(kept, s, critic);
      pack_transposed(net.weight2 + first * hidden, hidden, hidden, width, packed);
      product<2>(rows, keeps.second, s.hidden_stride(), 1, packed, kPanel, panel, kPanel, hidden, false);
      back_through_activation(panel, rows, keeps.joint + first, s.joint_stride(), sums);
      adam.update(net.bias1 + first, m.bias1 + first, v.bias1 + first, sums, width);
      step_layer(adam, observation_strips, observed, rows, panel, gradient, net.weight1 + first, m.weight1 + first,
                 v.weight1 + first, hidden, width);
    }
#pragma omp for schedule(static)
    for (int64_t item = 0; item < 2 * s.strips(s.joint()); ++item) {
      const int64_t critic = item / s.strips(s.joint()), strip = item % s.strips(s.joint());
      pack_strip(Kept(kept, s, critic).joint, s.joint(), s.joint_stride(), rows, strip,
                 joint_strips + critic * s.packed_strips(s.joint()));
    }
#pragma omp for schedule(static)
    for (int64_t item = 0; item < 2 * panels; ++item) {
      const int64_t critic = item / panels, first = item % panels * kPanel, width = s.width(item % panels);
      const Arrays net(arrays, s, critic), m(arrays + 6, s, critic), v(arrays + 12, s, critic);
      const float* const second = Kept(kept, s, critic).second;
      for (int64_t row = 0; row < rows; ++row)
        std::copy(second + row * s.hidden_stride() + first, second + row * s.hidden_stride() + first + kPanel,
                  panel + row * kPanel);
      step_layer(adam, joint_strips + critic * s.packed_strips(s.joint()), s.joint(), rows, panel, gradient,
                 net.weight2 + first, m.weight2 + first, v.weight2 + first, hidden, width);
    }
  }
}

}  // extern "C"
