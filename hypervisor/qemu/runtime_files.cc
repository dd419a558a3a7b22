#include "hypervisor/qemu/runtime_files.h"

#include <filesystem>
#include <set>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "agent/common/subprocess.h"

namespace husk::hypervisor {
namespace {

constexpr char kLoader[] = "/lib64/ld-linux-x86-64.so.2";
constexpr char kTranslatorModule[] = "/qemu/accel-tcg-x86_64.so";

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

// Symbolic links are resolved here: the launcher's clone of a mount follows none of the old root's.
launcher::Bind BindInPlace(const std::string& path) {
  std::error_code error;
  const auto resolved = std::filesystem::canonical(path, error);
  return {.source = error ? path : resolved.string(), .target = path};
}

// The program, its loader and libraries, and what every program may have.
StatusOr<std::set<std::string>> ProgramFiles(const Context& context, const std::string& program) {
  HUSK_ASSIGN_OR_RETURN(const auto listed,
                        RunSubprocess(context, {.argv = {kLoader, "--list", program}, .maximum_stdout = 1 << 18}));
  if (listed.exit_code != 0) {
    return absl::FailedPreconditionError(absl::StrCat("list the libraries of ", program, ": ", listed.standard_error));
  }
  std::set<std::string> paths = {program, kLoader};
  for (auto& library : ParseLoaderList(listed.standard_output)) paths.insert(std::move(library));
  for (const char* path : {"/etc/ld.so.cache", "/dev/null"}) {
    if (Exists(path)) paths.insert(path);
  }
  return paths;
}

std::vector<launcher::Bind> BindsOf(const std::set<std::string>& paths) {
  std::vector<launcher::Bind> binds;
  binds.reserve(paths.size());
  for (const auto& path : paths) binds.push_back(BindInPlace(path));
  return binds;
}

}  // namespace

std::vector<std::string> ParseLoaderList(const std::string& output) {
  std::vector<std::string> paths;
  for (absl::string_view line : absl::StrSplit(output, '\n')) {
    // "	libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f...)", "	/lib64/ld-linux-x86-64.so.2 (0x...)"
    if (const auto arrow = line.find(" => "); arrow != absl::string_view::npos) line.remove_prefix(arrow + 4);
    line = absl::StripAsciiWhitespace(line);
    line = line.substr(0, line.find(" ("));
    if (absl::StartsWith(line, "/")) paths.emplace_back(line);
  }
  return paths;
}

StatusOr<std::vector<launcher::Bind>> QemuRuntimeFiles(const Context& context, const std::string& qemu_binary) {
  HUSK_ASSIGN_OR_RETURN(std::set<std::string> paths, ProgramFiles(context, qemu_binary));
  std::set<std::string> modules;
  for (const auto& path : paths) {
    // Debian ships the translator as a module beside the libraries.
    const auto module = absl::StrCat(std::filesystem::path(path).parent_path().string(), kTranslatorModule);
    if (Exists(module)) modules.insert(module);
  }
  paths.merge(modules);
  // The second name is that by which QEMU looks for its modules.
  if (const std::string module = absl::StrCat("/usr/lib/x86_64-linux-gnu", kTranslatorModule); Exists(module)) {
    paths.insert(module);
  }
  for (const char* path : {"/usr/share/qemu", "/usr/share/seabios"}) {
    if (Exists(path)) paths.insert(path);
  }
  return BindsOf(paths);
}

StatusOr<std::vector<launcher::Bind>> FileServerFiles(const Context& context, const std::string& virtiofsd_binary) {
  HUSK_ASSIGN_OR_RETURN(const std::set<std::string> paths, ProgramFiles(context, virtiofsd_binary));
  return BindsOf(paths);
}

}  // namespace husk::hypervisor
