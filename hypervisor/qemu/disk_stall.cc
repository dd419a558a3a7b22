#include "hypervisor/qemu/disk_stall.h"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>
#include <utility>

namespace husk::hypervisor {

DiskStall::DiskStall(IoThread& io_thread, std::string name, std::chrono::milliseconds interval)
    : name_(std::move(name)), interval_(interval), io_thread_(io_thread), timer_(io_thread.context()) {}

void DiskStall::Handle(const QmpEvent& event) {
  if (event.name == "BLOCK_IO_ERROR" && event.data.value("action", nlohmann::json()) == "stop") Stopped();
}

void DiskStall::SetClient(const std::shared_ptr<QmpClient>& client) {
  const MutexLock lock(mutex_);
  client_ = client;
}

void DiskStall::Begin() {
  io_thread_.Post([self = shared_from_this()] { self->Stopped(); });
}

void DiskStall::Stopped() {
  if (!stopped_) {
    spdlog::warn("vm={} stands still: the host has no space left for its scratch disk; it goes on once there is some",
                 name_);
  }
  stopped_ = true;
  timer_.expires_after(interval_);  // takes the place of a wait that was on
  timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (!error && self != nullptr) self->Retry();
  });
}

void DiskStall::Retry() {
  std::shared_ptr<QmpClient> client;
  {
    const MutexLock lock(mutex_);
    client = client_.lock();
  }
  // Whoever connects next finds the VM as it is.
  if (client == nullptr || !client->status().ok()) return;
  client->Post("cont");
  // A write that fails again is told of at once. Silence for as long as a try takes means that the VM runs.
  timer_.expires_after(interval_);
  timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || self == nullptr || !std::exchange(self->stopped_, false)) return;
    spdlog::info("vm={} goes on: the host has space for its scratch disk again", self->name_);
  });
}

}  // namespace husk::hypervisor
