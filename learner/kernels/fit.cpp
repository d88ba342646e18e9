// Step B1 on a CPU: every tiny-batch's forward pass, gradient and Adam step in one sweep over the weights.
//
// An Adam step must read and write 5.6 MB of weights and moments at the paper's sizes. A tile of hidden units goes from
// its gradient through Adam straight to its output for the next tiny-batch, so that each step reads and writes them
// once, mostly in the cache, and stores no gradient.

#include "tiles.h"

extern "C" {

// Floats of scratch memory that ``surrogate_fit`` needs.
int64_t surrogate_fit_scratch(int64_t inputs, int64_t hidden, int64_t outputs, int64_t rows, int64_t steps,
                              int threads) {
  int64_t b = padded(rows, kPanel), n = padded(outputs, kLanes);
  int64_t own = (hidden + kTile) * b + kTile * (inputs + b + n + outputs) + kPanel + 3 * outputs * b +
                b * n + 4 * outputs;
  return steps * b * (inputs + padded(inputs, kPanel)) + threads * padded(own, 64);
}

// ``steps`` tiny-batches of ``rows`` rows: mean binary cross entropy over rows and outputs, one Adam step each.
// ``arrays``: weight1, bias1, weight2, bias2, then their first and second moments. Returns the last step's loss.
double surrogate_fit(int64_t inputs, int64_t hidden, int64_t outputs, float* const* arrays, double learning_rate,
                     double beta1, double beta2, double epsilon, double steps_before, const float* rows_in,
                     const float* targets, int64_t rows, int64_t steps, int threads, float* scratch) {
  const Network net{inputs, hidden, outputs, arrays[0], arrays[1], arrays[2], arrays[3]};
  const int64_t b = padded(rows, kPanel), n = padded(outputs, kLanes), panels = b / kPanel;
  const int64_t by_columns = b * inputs, by_inputs = b * padded(inputs, kPanel);
  float* const packed_columns = scratch;
  float* const packed_inputs = packed_columns + steps * by_columns;
  float* const private_scratch = packed_inputs + steps * by_inputs;
  const int64_t own =
      (surrogate_fit_scratch(inputs, hidden, outputs, rows, steps, threads) - steps * (by_columns + by_inputs)) /
      threads;
  double loss = 0;
#pragma omp parallel num_threads(threads)
  {
    FlushDenormals flush;
    const int thread = omp_get_thread_num(), present = omp_get_num_threads();
    const Range units = units_of(hidden, thread, present);
    float* next = private_scratch + thread * own;
    auto take = [&](int64_t count) { return std::exchange(next, next + count); };
    float* const partial = take(2 * outputs * b);  // first: other threads read it, at a place that they can compute
    float* const logit_gradient = take(outputs * b);
    float* const transposed = take(b * n);
    float* const hidden_gradient = take(kTile * b);
    float* const gradient1 = take(kTile * inputs + kPanel);
    float* const gradient2 = take(kTile * n);
    float* const gradient2_rows = take(kTile * outputs);
    float *const bias2 = take(outputs), *const bias2_m = take(outputs), *const bias2_v = take(outputs),
                 *const bias2_gradient = take(outputs);
    float* const activations = take((units.last - units.first) * b);
    std::copy(net.bias2, net.bias2 + outputs, bias2);
    std::copy(arrays[7], arrays[7] + outputs, bias2_m);
    std::copy(arrays[11], arrays[11] + outputs, bias2_v);
    std::fill(transposed, transposed + b * n, 0.0f);

    for (int64_t step = thread; step < steps; step += present) {
      const float* from = rows_in + step * rows * inputs;
      for (int64_t panel = 0; panel < panels; ++panel)
        pack_columns(from, rows, inputs, packed_columns + step * by_columns, panel);
      pack_inputs(from, rows, b, inputs, packed_inputs + step * by_inputs);
    }
#pragma omp barrier
    std::fill(partial, partial + outputs * b, 0.0f);
    for (int64_t unit = units.first; unit < units.last; unit += kTile)
      forward_tile(net, unit, std::min<int64_t>(kTile, units.last - unit), packed_columns, b, gradient2_rows,
                   activations + (unit - units.first) * b, partial);

    for (int64_t step = 0; step < steps; ++step) {
      const int64_t half = step % 2 * outputs * b, other = outputs * b - half;
#pragma omp barrier
      const Adam adam = adam_of_step(learning_rate, beta1, beta2, epsilon, steps_before + step + 1);
      double sum = 0;
      for (int64_t output = 0; output < outputs; ++output) {
        float total = 0;
        for (int64_t row = 0; row < b; ++row) {
          const int64_t at = output * b + row;
          if (row >= rows) {
            logit_gradient[at] = 0;
            continue;
          }
          float logit = bias2[output];
          for (int peer = 0; peer < present; ++peer) logit += private_scratch[peer * own + half + at];
          const float target = targets[(step * rows + row) * outputs + output];
          const float decay = std::exp(-std::fabs(logit));
          const float probability = (logit >= 0 ? 1.0f : decay) / (1 + decay);
          logit_gradient[at] = transposed[row * n + output] = (probability - target) / (rows * outputs);
          total += logit_gradient[at];
          if (thread == 0 && step == steps - 1)
            sum += std::max(logit, 0.0f) - logit * target + std::log1p(decay);
        }
        bias2_gradient[output] = total;
      }
      if (thread == 0 && step == steps - 1) loss = sum / (rows * outputs);
      adam.update(bias2, bias2_m, bias2_v, bias2_gradient, outputs);
      std::fill(partial + other, partial + other + outputs * b, 0.0f);

      const int64_t tiles = (units.last - units.first + kTile - 1) / kTile;
      for (int64_t i = 0; i < tiles; ++i) {
        // Every other step goes backwards: what was touched last is still in the cache.
        const int64_t unit = units.first + kTile * (step % 2 ? i : tiles - 1 - i);
        const int64_t count = std::min<int64_t>(kTile, units.last - unit);
        float* const active = activations + (unit - units.first) * b;
        backward_tile(net, unit, count, logit_gradient, b, active, hidden_gradient);
        int64_t done = 0;
        for (; done + kPanel <= n; done += kPanel)
          product<2>(count, active, b, 1, transposed + done, n, gradient2 + done, n, b, false);
        if (done < n) product<1>(count, active, b, 1, transposed + done, n, gradient2 + done, n, b, false);
        // From the right: what spills over the end of a row is overwritten by the next row's first panel.
        for (int64_t start = by_inputs / b - kPanel; start >= 0; start -= kPanel)
          product<2>(count, hidden_gradient, b, 1, packed_inputs + step * by_inputs + start * b, kPanel,
                     gradient1 + start, inputs, b, false);
        adam.update(net.weight1 + unit * inputs, arrays[4] + unit * inputs, arrays[8] + unit * inputs, gradient1,
                    count * inputs);
        for (int64_t u = 0; u < count; ++u) {
          Vector total{};
          for (int64_t row = 0; row < b; row += kLanes) total += load(hidden_gradient + u * b + row);
          float bias_gradient = 0;
          for (int lane = 0; lane < kLanes; ++lane) bias_gradient += total[lane];
          gradient1[u] = bias_gradient;
          for (int64_t output = 0; output < outputs; ++output)
            gradient2_rows[output * kTile + u] = gradient2[u * n + output];
        }
        adam.update(net.bias1 + unit, arrays[5] + unit, arrays[9] + unit, gradient1, count);
        for (int64_t output = 0; output < outputs; ++output) {
          const int64_t at = output * hidden + unit;
          adam.update(net.weight2 + at, arrays[6] + at, arrays[10] + at, gradient2_rows + output * kTile, count);
        }
        if (step + 1 < steps)
          forward_tile(net, unit, count, packed_columns + (step + 1) * by_columns, b, gradient2_rows, active,
                       partial + other);
      }
    }
#pragma omp barrier
    if (thread == 0) {
      std::copy(bias2, bias2 + outputs, arrays[3]);
      std::copy(bias2_m, bias2_m + outputs, arrays[7]);
      std::copy(bias2_v, bias2_v + outputs, arrays[11]);
    }
  }
  return loss;
}

}  // extern "C"
