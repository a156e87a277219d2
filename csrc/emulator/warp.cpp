// Warp instructions. Every lane brings its operands; the last to arrive computes for all.
#include <cmath>
#include <cstring>

#include "block.h"

namespace pyrf::emulator {
namespace {

constexpr uint32_t kAllLanes = 0xffffffffu;

struct MatrixRow {
  uint32_t words[4];
  uint32_t address;
};

struct Operands {
  uint32_t a[4], b[2];
};

// Row g and column t of the fragment elements of a lane, see the PTX manual on mma.m16n8k16 and m16n8k32.
int group(int lane) { return lane / 4; }
int column(int lane) { return lane % 4 * 2; }

void shuffle(WarpOp& op) {
  for (int lane = 0; lane < 32; ++lane) memcpy(op.out[lane], op.in[lane ^ op.argument], sizeof(uint32_t));
}

// A bank holds 4 bytes, a row takes four banks in a line: the 8 rows of a matrix should take all 32.
void count_conflicts(const WarpOp& op) {
  for (int matrix = 0; matrix < 4; ++matrix) {
    unsigned used = 0;
    for (int i = 0; i < 8; ++i) {
      used |= 1u << (static_cast<const MatrixRow*>(op.in[matrix * 8 + i])->address / 16 % 8);
    }
    counters.bank_conflicts += 8 - __builtin_popcount(used);
  }
}

void load_matrices(WarpOp& op) {
  ++counters.matrix_loads;
  count_conflicts(op);
  uint16_t rows[32][8];
  for (int lane = 0; lane < 32; ++lane)
    memcpy(rows[lane], static_cast<const MatrixRow*>(op.in[lane])->words, 16);
  for (int lane = 0; lane < 32; ++lane) {
    const int g = group(lane), t = column(lane);
    for (int matrix = 0; matrix < 4; ++matrix) {
      const auto* m = rows + matrix * 8;
      const uint32_t low = op.argument ? m[t][g] : m[g][t];
      const uint32_t high = op.argument ? m[t + 1][g] : m[g][t + 1];
      static_cast<uint32_t*>(op.out[lane])[matrix] = low | high << 16;
    }
  }
}

float value(uint32_t bits, Element element) {
  float x;
  if (element == kE4m3) {
    const int exponent = bits >> 3 & 15, fraction = bits & 7;
    if ((bits & 0x7f) == 0x7f) return NAN;
    x = exponent == 0 ? ldexpf(fraction, -9) : ldexpf(8 + fraction, exponent - 10);
    return bits & 0x80 ? -x : x;
  }
  if (element == kBf16) {
    bits <<= 16;
    memcpy(&x, &bits, sizeof x);
    return x;
  }
  const uint16_t half_bits = static_cast<uint16_t>(bits);
  _Float16 half;
  memcpy(&half, &half_bits, sizeof half);
  return static_cast<float>(half);
}

void multiply_add(WarpOp& op) {
  ++counters.multiply_adds;
  alignas(64) float a[16][32], b[32][8], c[16][8];
  const Element element = static_cast<Element>(op.argument);
  const int count = element == kE4m3 ? 4 : 2, bits = 32 / count;  // of a word, and each
  const auto put = [=](float* to, int step, uint32_t word) {
    for (int i = 0; i < count; ++i) to[i * step] = value(word >> i * bits & ((1u << bits) - 1), element);
  };
  const int half = 4 * count;
  for (int lane = 0; lane < 32; ++lane) {
    const auto& operands = *static_cast<const Operands*>(op.in[lane]);
    const int g = group(lane), t = column(lane), k = lane % 4 * count;
    put(&a[g][k], 1, operands.a[0]);
    put(&a[g + 8][k], 1, operands.a[1]);
    put(&a[g][k + half], 1, operands.a[2]);
    put(&a[g + 8][k + half], 1, operands.a[3]);
    put(&b[k][g], 8, operands.b[0]);
    put(&b[k + half][g], 8, operands.b[1]);
    const auto* sums = static_cast<const float*>(op.out[lane]);
    memcpy(&c[g][t], sums, 8);
    memcpy(&c[g + 8][t], sums + 2, 8);
  }
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 2 * half; ++k) {
      for (int j = 0; j < 8; ++j) c[i][j] += a[i][k] * b[k][j];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    auto* sums = static_cast<float*>(op.out[lane]);
    memcpy(sums, &c[group(lane)][column(lane)], 8);
    memcpy(sums + 2, &c[group(lane) + 8][column(lane)], 8);
  }
}

// Returns when all lanes of the warp have brought their part and `compute` has run.
void meet(const char* name, int line, int argument, const void* in, void* out, void (*compute)(WarpOp&)) {
  CudaThread& thread = *block.running;
  WarpOp& op = block.ops[thread.warp()];
  if (op.arrived != 0 && (op.name != name || op.line != line || op.argument != argument)) {
    fail("divergent warp instructions: %s of line %d (argument %d) and %s of line %d (argument %d)", name,
         line, argument, op.name, op.line, op.argument);
  }
  op.name = name;
  op.line = line;
  op.argument = argument;
  op.in[thread.lane()] = in;
  op.out[thread.lane()] = out;
  op.arrived |= 1u << thread.lane();
  if (op.arrived == kAllLanes) {
    op.arrived = 0;
    if (compute != nullptr) compute(op);
    if (schedule() == kRoundRobin) {  // the last lane goes on, which saves a switch
      wake(thread.warp(), kAllLanes & ~(1u << thread.lane()));
      return;
    }
    wake(thread.warp(), kAllLanes);
  }
  reschedule();
}

constexpr char kSync[] = "syncwarp", kShuffle[] = "shfl", kLoad[] = "ldmatrix", kMultiply[] = "mma";

}  // namespace

void sync_warp(int line) {
  char* event = &block.warp_event[block.running->warp()];
  release(event);
  meet(kSync, line, 0, nullptr, nullptr, nullptr);
  acquire(event);
}

uint32_t shuffle_xor(uint32_t x, int lanes, int line) {
  uint32_t result;
  meet(kShuffle, line, lanes, &x, &result, shuffle);
  return result;
}

void load_matrices(uint32_t (&x)[4], const uint32_t (&row)[4], uint32_t address, bool transposed, int line) {
  const MatrixRow in{{row[0], row[1], row[2], row[3]}, address};
  uint32_t out[4];
  meet(kLoad, line, transposed, &in, out, load_matrices);
  memcpy(x, out, sizeof x);
}

void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Element element,
                  int line) {
  const Operands in{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  float sums[4] = {c[0], c[1], c[2], c[3]};
  meet(kMultiply, line, element, &in, sums, multiply_add);
  memcpy(c, sums, sizeof c);
}

}  // namespace pyrf::emulator
