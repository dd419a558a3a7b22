// agent/common/fuzz_require.h for the targets of this room.
#ifndef HUSK_IMAGES_FUZZ_REQUIRE_H_
#define HUSK_IMAGES_FUZZ_REQUIRE_H_

#include "agent/common/fuzz_require.h"

namespace husk::images::fuzz {

using husk::fuzz::AsText;
using husk::fuzz::Require;
using husk::fuzz::RequireSoundError;

}  // namespace husk::images::fuzz

#endif  // HUSK_IMAGES_FUZZ_REQUIRE_H_
