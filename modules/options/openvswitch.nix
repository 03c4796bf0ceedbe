# The switch of networks of the type `ovs`.
{ lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  options.services.virshle.openvswitch = {
    enable = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Whether Open vSwitch runs, for networks of the type `ovs`. A switch to a new system does not restart it: it
        would cut the guests off. A new package, and settings of DPDK that it reads only once, take effect with the
        next start of the host, or of {file}`ovs-vswitchd.service`.
      '';
    };
    dpdk = {
      enable = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = "Whether Open vSwitch has DPDK, which NICs of the type `vhost` need. It busy-polls a processor for each thread of its own.";
      };
      pmdCpuMask = mkOption {
        type = types.nullOr (types.strMatching "(0x)?[0-9a-fA-F]+");
        default = null;
        example = "0x6";
        description = "The processors that poll the ports, as a mask (`other_config:pmd-cpu-mask`); null: one of Open vSwitch's choice.";
      };
      socketMem = mkOption {
        type = types.listOf types.ints.unsigned;
        default = [ ];
        example = [
          1024
          1024
        ];
        description = "The memory that it takes of the hugepages, in MiB, for each NUMA node (`other_config:dpdk-socket-mem`); empty: as much as it asks for by itself.";
      };
    };
    hugepages = {
      count = mkOption {
        type = types.ints.unsigned;
        default = 0;
        example = 1024;
        description = "How many hugepages are set aside for DPDK; 0: none, or those that the system's own settings set aside.";
      };
      size = mkOption {
        type = types.enum [
          "2M"
          "1G"
        ];
        default = "2M";
        example = "1G";
        description = "How large they are. Those of 1 GiB are set aside by the kernel's command line, with the next start of the host.";
      };
    };
  };
}
