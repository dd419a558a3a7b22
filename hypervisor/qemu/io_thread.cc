#include "hypervisor/qemu/io_thread.h"

#include <pthread.h>

#include <boost/asio/post.hpp>
#include <csignal>
#include <utility>

namespace husk::hypervisor {

IoThread::IoThread() : context_(1), work_(boost::asio::make_work_guard(context_)) {
  // Signals are for huskd's other threads: the new thread inherits a full mask.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  thread_ = std::thread([this] { context_.run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(thread_.native_handle(), "hypervisor-io");
}

IoThread::~IoThread() {
  context_.stop();
  thread_.join();
}

void IoThread::Post(std::function<void()> task) {
  boost::asio::post(context_, std::move(task));
}

}  // namespace husk::hypervisor
