// Mutations that leave an archive one: a wrong checksum or record length would end nearly every input at its first
// header.
#ifndef HUSK_IMAGES_FUZZ_TAR_MUTATOR_H_
#define HUSK_IMAGES_FUZZ_TAR_MUTATOR_H_

#include <cstddef>
#include <cstdint>

namespace husk::images::fuzz {

// Copies or removes one block of the archive behind the first byte, at one of four seeds. Returns the new size, or 0
// if it has changed nothing.
std::size_t MoveTarBlock(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned int seed);

// Sets right, in place, the lengths of PAX records that fit into one block, and the checksums of headers.
void MendTar(std::uint8_t* archive, std::size_t size);

}  // namespace husk::images::fuzz

#endif  // HUSK_IMAGES_FUZZ_TAR_MUTATOR_H_
