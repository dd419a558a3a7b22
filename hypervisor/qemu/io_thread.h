// The one thread that owns QMP sockets and watches QEMU processes.
#ifndef HUSK_HYPERVISOR_QEMU_IO_THREAD_H_
#define HUSK_HYPERVISOR_QEMU_IO_THREAD_H_

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <functional>
#include <thread>

namespace husk::hypervisor {

// Runs its io_context until it is destroyed, which must not happen on the thread itself. Handlers that wait then are
// dropped, with what they hold. What has Asio objects in this context must not outlive it, except in such handlers.
class IoThread {
 public:
  IoThread();
  ~IoThread();
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

  [[nodiscard]] boost::asio::io_context& context() { return context_; }
  // Runs `task` on the thread, later. It must not block. Thread safe.
  void Post(std::function<void()> task);

 private:
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
};

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_IO_THREAD_H_
