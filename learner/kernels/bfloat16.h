// Products of bfloat16 numbers with sums in float32: by AMX tiles where the processor has them, else imitated.
//
// "Pairs": two numbers that follow each other along the summed axis, in 32 bits; the earlier one in the lower half. A
// right-hand side is [pair][column of a panel], a left-hand side simply rows: pairs lie in them already.

#pragma once

#include "panels.h"

#if defined(__AMX_BF16__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr int64_t kChunk = 32;  // numbers of the summed axis that one tile takes: a cache line
constexpr int64_t kPairs = kChunk / 2;
constexpr int64_t kStrip = 32;  // rows of a left-hand side that are worked on together

// Numbers between two rows of bfloat16: whole chunks, and an odd number of lines, so that rows share no set of a cache.
inline int64_t short_stride(int64_t columns) { return (padded(columns, kChunk) / kChunk | 1) * kChunk; }

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// To the nearest, ties to even.
inline uint16_t rounded(float value) {
  const uint32_t bits = bits_of(value);
  return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}

// ``room`` numbers, of which those after ``count`` are zero.
inline void round_row(const float* from, int64_t count, uint16_t* to, int64_t room) {
  for (int64_t i = 0; i < count; ++i) to[i] = rounded(from[i]);
  std::fill(to + count, to + room, 0);
}

// A panel's columns of all rows.
void round_panel(const float* from, int64_t from_stride, int64_t rows, uint16_t* to, int64_t to_stride) {
  for (int64_t row = 0; row < rows; ++row) round_row(from + row * from_stride, kPanel, to + row * to_stride, kPanel);
}

// to[pair][row] = from[row][pair] of ``rows`` rows (a multiple of kLanes) by kPairs pairs.
void transpose_pairs(const uint32_t* from, int64_t from_stride, int64_t rows, uint32_t* to, int64_t to_stride) {
  for (int64_t row = 0; row < rows; row += kLanes)
    for (int64_t pair = 0; pair < kPairs; pair += kLanes)
      transpose_square(reinterpret_cast<const float*>(from) + row * from_stride + pair, from_stride,
                       reinterpret_cast<float*>(to) + pair * to_stride + row, to_stride);
}

// A right-hand side whose columns are ``width`` rows of weights, summed over their columns; what is missing is zero.
void pairs_of_columns(const float* rows, int64_t columns, int64_t stride, int64_t width, uint32_t* to) {
  alignas(64) uint16_t near[kPanel][kChunk];
  for (int64_t column = 0; column < columns; column += kChunk, to += kPairs * kPanel) {
    const int64_t count = std::min(kChunk, columns - column);
    for (int64_t row = 0; row < kPanel; ++row)
      round_row(rows + row * stride + column, row < width ? count : 0, near[row], kChunk);
    transpose_pairs(reinterpret_cast<const uint32_t*>(near), kPairs, kPanel, to, kPanel);
  }
}

// A right-hand side whose columns are columns of weights, summed over their rows; what is missing is zero.
void pairs_of_rows(const float* from, int64_t rows, int64_t stride, int64_t width, uint32_t* to) {
  alignas(64) uint16_t near[2][kPanel];
  for (int64_t row = 0; row < padded(rows, kChunk); row += 2, to += kPanel) {
    for (int64_t half = 0; half < 2; ++half) {
      if (row + half + kAhead < rows) __builtin_prefetch(from + (row + half + kAhead) * stride);
      round_row(from + (row + half) * stride, row + half < rows ? width : 0, near[half], kPanel);
    }
    for (int64_t unit = 0; unit < kPanel; ++unit) to[unit] = near[0][unit] | (uint32_t)near[1][unit] << 16;
  }
}

// The same of rows that are rounded already: ``columns`` of them.
void pairs_of_rows(const uint16_t* from, int64_t rows, int64_t stride, int64_t columns, uint32_t* to) {
  for (int64_t row = 0; row < padded(rows, kChunk); row += 2, to += columns) {
    const uint16_t *even = from + row * stride, *odd = even + stride;
    for (int64_t unit = 0; unit < columns; ++unit)
      to[unit] = (row < rows ? even[unit] : 0) | (row + 1 < rows ? (uint32_t)odd[unit] << 16 : 0);
  }
}

// A strip of a left-hand side whose rows are columns of ``from``, summed over its rows: to[column][row].
void columns_as_rows(const uint16_t* from, int64_t rows, int64_t stride, uint16_t* to) {
  alignas(64) uint32_t near[kPairs][kStrip];
  const int64_t room = padded(rows, kChunk);
  for (int64_t row = 0; row < room; row += kChunk) {
    pairs_of_rows(from + row * stride, std::min(kChunk, rows - row), stride, kStrip, near[0]);
    for (int64_t column = 0; column < kStrip; column += kPairs) {
      auto* const there = reinterpret_cast<uint32_t*>(to + column * room + row);
      transpose_pairs(near[0] + column, kStrip, kPairs, there, room / 2);
    }
  }
}

// c[rows][panel] (+)= a · b
void imitated_product(int64_t rows, const uint16_t* a, int64_t a_stride, const uint32_t* b, float* c, int64_t depth,
                      bool adds) {
  for (int64_t row = 0; row < rows; ++row, a += a_stride, c += kPanel) {
    if (!adds) std::fill(c, c + kPanel, 0.0f);
    for (int64_t k = 0; k < depth; k += 2) {
      const float even = float_of((uint32_t)a[k] << 16), odd = float_of((uint32_t)a[k + 1] << 16);
      const uint32_t* const right = b + k / 2 * kPanel;
      for (int64_t unit = 0; unit < kPanel; ++unit)
        c[unit] += even * float_of(right[unit] << 16) + odd * float_of(right[unit] & 0xffff0000u);
    }
  }
}

#if defined(__AMX_BF16__)
static_assert(kPanel == 32, "two tiles of columns");

// Linux gives a process the registers when it asks for them.
bool tiles_are_there() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  static const bool are_there = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return are_there;
}

// The compiler does not know which memory instructions on tiles read: what was written before them must be there.
inline void settle(const void* memory) { __asm__ volatile("" ::"r"(memory) : "memory"); }

// Tiles of 16 rows of a line each, for as long as this lives; the thread's own configuration comes back after it.
class Tiles {
  struct alignas(64) Configuration {
    uint8_t palette = 0, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
  } before;
  const bool is_used;

 public:
  explicit Tiles(bool is_asked) : is_used(is_asked && tiles_are_there()) {
    if (!is_used) return;
    settle(&before);
    _tile_storeconfig(&before);
    Configuration ours;
    ours.palette = 1;
    for (int tile = 0; tile < 8; ++tile) ours.bytes[tile] = 64, ours.rows[tile] = 16;
    settle(&ours);
    _tile_loadconfig(&ours);
  }
  ~Tiles() {
    if (!is_used) return;
    settle(&before);
    _tile_loadconfig(&before);
  }
};

// c[rows][panel] (+)= a · b; rows of ``a`` and ``c`` exist up to a multiple of kStrip.
void tile_product(int64_t rows, const uint16_t* a, int64_t a_stride, const uint32_t* b, float* c, int64_t depth,
                  bool adds) {
  constexpr int64_t kHalf = 16, kLineBytes = 4 * kPanel;
  if (!tiles_are_there()) return imitated_product(rows, a, a_stride, b, c, depth, adds);
  settle(b);
  for (int64_t row = 0; row < rows; row += kStrip, a += kStrip * a_stride, c += kStrip * kPanel) {
    const uint16_t* const lower = a + kHalf * a_stride;
    float* const below = c + kHalf * kPanel;
    if (adds) {
      _tile_loadd(0, c, kLineBytes);
      _tile_loadd(1, c + kHalf, kLineBytes);
      _tile_loadd(2, below, kLineBytes);
      _tile_loadd(3, below + kHalf, kLineBytes);
    } else {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
    for (int64_t k = 0; k < depth; k += kChunk) {
      const uint32_t* const right = b + k / 2 * kPanel;
      _tile_loadd(4, a + k, 2 * a_stride);
      _tile_loadd(5, lower + k, 2 * a_stride);
      _tile_loadd(6, right, kLineBytes);
      _tile_loadd(7, right + kHalf, kLineBytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, kLineBytes);
    _tile_stored(1, c + kHalf, kLineBytes);
    _tile_stored(2, below, kLineBytes);
    _tile_stored(3, below + kHalf, kLineBytes);
  }
  settle(c);
}

#else

bool tiles_are_there() { return false; }

struct Tiles {
  explicit Tiles(bool) {}
};

void tile_product(int64_t rows, const uint16_t* a, int64_t a_stride, const uint32_t* b, float* c, int64_t depth,
                  bool adds) {
  imitated_product(rows, a, a_stride, b, c, depth, adds);
}

#endif

// Adam on a panel's columns of a layer, as ``step_layer``: the gradient is the product of strips and pairs.
void step_layer_by_tiles(const Adam& adam, const uint16_t* strips, int64_t units, int64_t rows, const uint32_t* right,
                         float* gradient, float* weight, float* m, float* v, int64_t columns, int64_t width) {
  for (int64_t first = 0; first < units; first += kStrip) {
    const int64_t count = std::min(kStrip, units - first);
    for (int64_t row = first + kStrip; row < std::min(units, first + 2 * kStrip); ++row)
      for (float* array : {weight, m, v}) fetch(array + row * columns, width);
    tile_product(kStrip, strips + first * padded(rows, kChunk), padded(rows, kChunk), right, gradient, rows, false);
    for (int64_t row = 0; row < count; ++row) {
      const int64_t at = (first + row) * columns;
      adam.update(weight + at, m + at, v + at, gradient + row * kPanel, width);
    }
  }
}

}  // namespace
