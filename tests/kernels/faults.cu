// Small kernels, each with one fault that the emulator must name.
#include "launch.h"

namespace pyrf {
namespace {

struct FaultParams {
  int which;
  float* buffer;  // [64]
};

enum Fault {
  kNone,
  kDivergentBarriers,
  kExitBeforeBarrier,
  kBarrierAfterExit,
  kDivergentWarp,
  kOtherArgument,
  kLaneMissing,
  kSharedOutOfBounds,
  kSharedMisaligned,
  kGlobalOutOfBounds,
  kGlobalFarOut,
  kGlobalMisaligned,
  kCopyNotAwaited,
  kBlocksWriteOnePlace,
  kBlocksReadWhatOneWrites,
  kSharedRace,
};

void fault_kernel(const FaultParams params) {
  const int thread = threadIdx.x, lane = thread % 32;
  const bool first_block = blockIdx.x == 0;
  float* own = params.buffer + 4 * thread;
  switch (params.which) {
    case kDivergentBarriers:
      if (thread < 32)
        ptx::sync_threads();
      else
        ptx::sync_threads();
      break;
    case kExitBeforeBarrier:
      if (thread == 40) return;
      ptx::sync_threads();
      break;
    case kBarrierAfterExit:
      if (thread < 32) return;
      ptx::sync_threads();
      break;
    case kDivergentWarp:
      if (lane < 16)
        ptx::shuffle_xor(1.0f, 1);
      else
        ptx::sync_warp();
      break;
    case kOtherArgument:
      ptx::shuffle_xor(1.0f, lane < 16 ? 1 : 2);
      break;
    case kLaneMissing:
      if (lane != 7) ptx::sync_warp();
      break;
    case kSharedOutOfBounds:
      ptx::store_shared(256 + 4 * thread, 0);
      break;
    case kSharedMisaligned:
      ptx::load_shared16(8);
      break;
    case kGlobalOutOfBounds:
      ptx::store16(own, uint4{});
      break;
    case kGlobalFarOut:
      ptx::load16(own + (1 << 20));
      break;
    case kGlobalMisaligned:
      ptx::load16(params.buffer + 1);
      break;
    case kCopyNotAwaited:
      ptx::copy_async16(0, params.buffer, true);
      ptx::copy_async_commit();
      ptx::copy_async_wait<1>();
      break;
    case kBlocksWriteOnePlace:
      if (thread == 0) ptx::store16(params.buffer, uint4{});
      break;
    case kBlocksReadWhatOneWrites:
      if (thread == 0 && first_block) ptx::store16(params.buffer, uint4{});
      if (thread == 0 && !first_block) ptx::load16(params.buffer);
      break;
    case kSharedRace:  // right in a regular order, which is what sanitizers are for
      if (thread == 0) ptx::store_shared(0, 1);
      if (thread == 1) ptx::load_shared(0);
      break;
  }
}

}  // namespace
}  // namespace pyrf

extern "C" int pyrf_fault(int which, float* buffer, int blocks, int threads, int shared_bytes) {
  return pyrf::launch("fault", pyrf::fault_kernel, dim3(blocks), threads, shared_bytes, nullptr,
                      pyrf::FaultParams{which, buffer});
}
