#include "cri/config/installation.h"

#include <unistd.h>

#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace husk::cri {

namespace {

struct Wanted {
  const char* key;     // of the configuration
  const char* what;    // for errors
  const char* remedy;  // the same
  std::string* path;
  std::vector<std::string> places;
};

bool Readable(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error) && access(path.c_str(), R_OK) == 0;
}

Status Complete(const Wanted& wanted) {
  if (!wanted.path->empty()) {
    if (Readable(*wanted.path)) return absl::OkStatus();
    return absl::NotFoundError(absl::StrCat(wanted.key, " names ", *wanted.path, ", which is missing or not readable"));
  }
  for (const std::string& place : wanted.places) {
    if (!Readable(place)) continue;
    *wanted.path = place;
    return absl::OkStatus();
  }
  return absl::NotFoundError(absl::StrCat("there is no ", wanted.what, " (looked for ",
                                          absl::StrJoin(wanted.places, " and "), "): ", wanted.remedy, ", or set ",
                                          wanted.key, " in the configuration"));
}

}  // namespace

StatusOr<std::string> ExecutableDirectory() {
  std::error_code error;
  const std::filesystem::path executable = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return ErrnoStatus(error.value(), "read /proc/self/exe");
  return executable.parent_path().string();
}

Status CompleteInstallation(const std::string& executable_directory, Config* config) {
  const std::filesystem::path here(executable_directory);
  const std::filesystem::path installed = (here / "../libexec/husk").lexically_normal();
  const std::filesystem::path built = (here / "../guest").lexically_normal();
  const char* const build_guest = "build the guest image (the target husk_guest_image)";
  const Wanted all[] = {
      {.key = "vm.launcher",
       .what = "husk-vm-launcher",
       .remedy = "build or install Husk completely",
       .path = &config->vm.launcher,
       .places = {here / "husk-vm-launcher", installed / "husk-vm-launcher"}},
      {.key = "vm.kernel",
       .what = "guest kernel",
       .remedy = build_guest,
       .path = &config->vm.kernel,
       .places = {built / "kernel", installed / "kernel"}},
      {.key = "vm.initrd",
       .what = "guest initrd",
       .remedy = build_guest,
       .path = &config->vm.initrd,
       .places = {built / "initrd", installed / "initrd"}},
  };
  for (const Wanted& wanted : all) HUSK_RETURN_IF_ERROR(Complete(wanted));
  return absl::OkStatus();
}

}  // namespace husk::cri
