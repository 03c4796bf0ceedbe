# What the host has to have for the VMs, and what a VM cannot ask for.
{
  cfg,
  config,
  declared,
  lib,
  ...
}:
let
  inherit (lib)
    concatMapStringsSep
    filter
    foldl'
    head
    length
    optional
    ;
  size = import ../lib/size.nix { inherit lib; };
  inherit (declared) vms;

  # `the VM `a` has`, `the VMs `a`, `b` have`.
  who =
    one: many: vms:
    if length vms == 1 then
      "the VM `${(head vms).name}` ${one}"
    else
      "the VMs ${concatMapStringsSep ", " (vm: "`${vm.name}`") vms} ${many}";

  # Set aside by any module; Open vSwitch takes those of its own size.
  hugepages =
    (config.boot.kernel.sysctl."vm.nr_hugepages" or 0) != 0
    || lib.any (lib.hasPrefix "hugepages=") config.boot.kernelParams;
  vhost = filter (vm: lib.any (nic: nic.link == "vhost") vm.net) vms;

  most =
    vm:
    let
      bytes = size.bytes (vm.vram-max or vm.vram or 0);
    in
    if bytes == null then 0 else bytes;
  sum = foldl' (sum: vm: sum + most vm) 0 (filter (vm: (vm.running or true) != false) vms);
  limit = size.bytes cfg.memoryLimit;

  missing =
    kind: option:
    let
      asking = filter (vm: (vm.hypervisor or cfg.node.hypervisor) == kind) vms;
    in
    optional (asking != [ ] && !cfg.hypervisors.${option}.enable)
      "${who "asks" "ask" asking} for ${kind}, which is not there. Set `services.virshle.hypervisors.${option}.enable = true`, or name another `hypervisor`.";
in
optional (vhost != [ ] && !hugepages)
  "${who "has" "have" vhost} NICs of the type `vhost`, and no hugepages are set aside. Set `services.virshle.openvswitch.hugepages.count = 1024`, or give the NICs `type = \"tap\"`."
++
  optional (cfg.openvswitch.enable && vhost != [ ] && !cfg.openvswitch.dpdk.enable)
    "${who "has" "have" vhost} NICs of the type `vhost`, and Open vSwitch is without DPDK. Set `services.virshle.openvswitch.dpdk.enable = true`, or give the NICs `type = \"tap\"`."
++ map (
  vm:
  "the VM `${vm.name}` has both `onRemove = \"delete\"` and `protect = true`, and what is protected is not deleted. Set `onRemove = \"stop\"`, or `protect = false`."
) (filter (vm: (vm.on-remove or "stop") == "delete" && vm.protect or false) vms)
++
  optional (cfg.memoryLimit != null && sum > limit)
    "the declared VMs come to ${size.show sum} of memory together, more than `services.virshle.memoryLimit` (${size.show limit}). Give them less `vram` or `vramMax`, set `running = false` for one, or raise the limit."
++ missing "cloud-hypervisor" "cloudHypervisor"
++ missing "qemu" "qemu"
++ optional (lib.elem cfg.user config.users.groups.virshle.members) "the user `${cfg.user}`, whom hypervisors run as, is a member of the group `virshle`: a guest that breaks out could command the host's VMs. Take it out of `services.virshle.members`, or set another `services.virshle.user`."
