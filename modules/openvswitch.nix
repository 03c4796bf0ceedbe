# Open vSwitch for networks of the type `ovs`, with DPDK and its hugepages where `vhost` needs them.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib)
    concatMapStringsSep
    concatStringsSep
    mkDefault
    mkIf
    mkMerge
    ;
  cfg = config.services.virshle;
  ovs = cfg.openvswitch;
  inherit (ovs) dpdk hugepages;
  vsctl = "${config.virtualisation.vswitch.package}/bin/ovs-vsctl --no-wait";

  # What is not said is taken back, too.
  told = {
    dpdk-init = "true";
    pmd-cpu-mask = dpdk.pmdCpuMask;
    dpdk-socket-mem =
      if dpdk.socketMem == [ ] then null else concatMapStringsSep "," toString dpdk.socketMem;
  };
  setting =
    key: value:
    if value == null then
      "remove Open_vSwitch . other_config ${key}"
    else
      ''set Open_vSwitch . "other_config:${key}=\"${value}\""'';

  # Restarting either cuts every guest off that a switch of theirs serves.
  undisturbed = {
    restartIfChanged = false;
    stopIfChanged = false;
  };
in
{
  config = mkIf (cfg.enable && ovs.enable) (mkMerge [
    {
      virtualisation.vswitch.enable = true;
      systemd.services.ovsdb = undisturbed;
      systemd.services.ovs-vswitchd = undisturbed;
    }

    (mkIf dpdk.enable {
      virtualisation.vswitch.package = mkDefault pkgs.openvswitch-dpdk;

      systemd.services.virshle-openvswitch = {
        description = "DPDK settings of Open vSwitch";
        wantedBy = [ "ovs-vswitchd.service" ];
        before = [ "ovs-vswitchd.service" ];
        requires = [ "ovsdb.service" ];
        after = [ "ovsdb.service" ];
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = "${vsctl} ${concatStringsSep " -- " (lib.mapAttrsToList setting told)}";
          NoNewPrivileges = true;
          PrivateDevices = true;
          PrivateNetwork = true;
          PrivateTmp = true;
          ProtectHome = true;
          ProtectKernelModules = true;
          ProtectKernelTunables = true;
          ProtectSystem = "strict";
          RestrictAddressFamilies = [ "AF_UNIX" ];
          SystemCallArchitectures = "native";
        };
      };
    })

    (mkIf (hugepages.count > 0 && hugepages.size == "2M") {
      boot.kernel.sysctl."vm.nr_hugepages" = hugepages.count;
    })
    (mkIf (hugepages.count > 0 && hugepages.size == "1G") {
      boot.kernelParams = [
        "hugepagesz=1G"
        "hugepages=${toString hugepages.count}"
      ];
    })
  ]);
}
