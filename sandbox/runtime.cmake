# The runtime itself: the files directly in sandbox/. Included by sandbox/CMakeLists.txt.
add_subdirectory(store)

find_package(nlohmann_json REQUIRED)
find_package(spdlog REQUIRED)

# Also of those who only listen: cri/service and its tests.
husk_add_library(husk_sandbox_events
  SOURCES event_hub.cc
  PUBLIC husk_common
  PRIVATE absl::strings spdlog::spdlog)

# Also of who has the connections: cri/streaming.
husk_add_library(husk_sandbox_ports
  SOURCES port_exchange.cc
  PUBLIC husk_common
  PRIVATE absl::strings)

husk_add_library(husk_sandbox
  SOURCES collect_stats.cc container_disks.cc attach.cc container_output.cc exec.cc exec_sync.cc host_device.cc execution.cc id.cc information.cc input_pump.cc input_writer.cc make_container.cc make_pod.cc output_tap.cc owed_teardowns.cc paths.cc pod.cc pod_meter.cc pod_monitor.cc pod_vm.cc port_forward.cc
          mute_guest.cc recovery.cc memory_on_demand.cc resize.cc run_container.cc runtime_impl.cc runtime_owed.cc runtime_recovery.cc signals.cc stats_history.cc stop_pod.cc update_resources.cc vm_size.cc wanted_size.cc
  PUBLIC husk_common husk_agent_proto husk_sandbox_events husk_sandbox_ports
  PRIVATE husk_sandbox_store husk_sandbox_cdi husk_sandbox_host husk_sandbox_log husk_sandbox_oci husk_sandbox_volumes
          husk_sandbox_bandwidth nlohmann_json::nlohmann_json
          spdlog::spdlog absl::strings Threads::Threads)

husk_add_unit_test(sandbox_runtime_test
  SOURCES cancel_test.cc container_disks_test.cc host_device_test.cc attach_test.cc container_test.cc container_volumes_test.cc crash_test.cc drain_test.cc event_hub_test.cc events_test.cc exec_sync_test.cc hostile_guest_test.cc huge_pages_test.cc exec_test.cc owed_teardowns_test.cc port_exchange_test.cc port_forward_test.cc recovery_test.cc resize_test.cc run_pod_test.cc resources_test.cc signals_test.cc stats_history_test.cc stats_test.cc
          vm_choices_test.cc vm_size_test.cc waiting_test.cc wanted_size_test.cc
  PRIVATE husk_sandbox husk_sandbox_log husk_sandbox_ports husk_sandbox_store husk_agent_client husk_agent_fake husk_agent_test_guest husk_hypervisor_fake absl::strings nlohmann_json::nlohmann_json
          Threads::Threads)
