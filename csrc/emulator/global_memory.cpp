// Which global memory a kernel may touch, and which blocks met where.
#include <algorithm>
#include <cstdint>
#include <string>

#include "block.h"

namespace pyrf::emulator {
namespace {

constexpr size_t kGranule = 8;  // the smallest access
constexpr uint32_t kNobody = 0, kSeveral = ~0u;

struct Buffer {
  uintptr_t start;
  size_t bytes;
  std::string name;
  std::vector<uint32_t> reader, writer;  // of each granule: block + 1, or one of the above
};

std::vector<Buffer> buffers;

Buffer* find(const void* address, uint32_t bytes) {
  const auto place = reinterpret_cast<uintptr_t>(address);
  for (Buffer& buffer : buffers) {
    if (place >= buffer.start && place + bytes <= buffer.start + buffer.bytes) return &buffer;
  }
  return nullptr;
}

// Where the access lies, after the checks that loads and stores share; null when nothing is registered.
Buffer* check(const char* verb, const void* address, uint32_t bytes, int line) {
  const auto place = reinterpret_cast<uintptr_t>(address);
  if (place % bytes != 0) fail("%s of %u bytes is misaligned, line %d", verb, bytes, line);
  maybe_yield();
  if (buffers.empty()) return nullptr;
  Buffer* buffer = find(address, bytes);
  if (buffer != nullptr) return buffer;
  for (const Buffer& near : buffers) {
    const auto offset = static_cast<long long>(place) - static_cast<long long>(near.start);
    if (offset < -4096 || offset > static_cast<long long>(near.bytes) + 4096) continue;
    fail("%s out of bounds: byte %lld of %s, which has %zu, line %d", verb, offset, near.name.c_str(),
         near.bytes, line);
  }
  fail("%s out of bounds of all %zu buffers, line %d", verb, buffers.size(), line);
}

bool is_other(uint32_t who, uint32_t me) { return who != kNobody && who != me; }

}  // namespace

void register_buffer(const void* start, size_t bytes, const char* name) {
  buffers.push_back({reinterpret_cast<uintptr_t>(start), bytes, name, {}, {}});
}

void forget_buffers() { buffers.clear(); }

void begin_global_memory() {
  for (Buffer& buffer : buffers) {
    const size_t granules = (buffer.bytes + kGranule - 1) / kGranule;
    buffer.reader.assign(granules, kNobody);
    buffer.writer.assign(granules, kNobody);
  }
}

void check_load(const void* from, uint32_t bytes, int line) {
  counters.bytes_loaded += bytes;
  Buffer* buffer = check("load", from, bytes, line);
  if (buffer == nullptr) return;
  const uint32_t me = block.index + 1;
  const size_t first = (reinterpret_cast<uintptr_t>(from) - buffer->start) / kGranule;
  for (size_t i = first; i < first + bytes / kGranule; ++i) {
    if (is_other(buffer->writer[i], me)) {
      fail("race: line %d reads byte %zu of %s, which another block writes", line, i * kGranule,
           buffer->name.c_str());
    }
    buffer->reader[i] = is_other(buffer->reader[i], me) ? kSeveral : me;
  }
}

void check_store(const void* to, uint32_t bytes, int line) {
  counters.bytes_stored += bytes;
  Buffer* buffer = check("store", to, bytes, line);
  if (buffer == nullptr) return;
  const uint32_t me = block.index + 1;
  const size_t first = (reinterpret_cast<uintptr_t>(to) - buffer->start) / kGranule;
  for (size_t i = first; i < first + bytes / kGranule; ++i) {
    if (is_other(buffer->writer[i], me) || is_other(buffer->reader[i], me)) {
      fail("race: line %d writes byte %zu of %s, which another block touches", line, i * kGranule,
           buffer->name.c_str());
    }
    buffer->writer[i] = me;
  }
}

}  // namespace pyrf::emulator
