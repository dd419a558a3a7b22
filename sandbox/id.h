// Ids of pods, containers and execs.
#ifndef HUSK_SANDBOX_ID_H_
#define HUSK_SANDBOX_ID_H_

#include <cstdint>
#include <string>

namespace husk::sandbox {

// 64 hexadecimal digits from the kernel's random numbers: the form that kubelets and crictl know.
std::string NewId();

// Nanoseconds since 1970, by the host's clock.
std::int64_t NowNanoseconds();

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_ID_H_
