# `[node]`: this host, beyond what the other options say of it.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  file =
    example: description:
    mkOption {
      type = types.nullOr types.path;
      default = null;
      inherit example description;
    };
in
{
  options.services.virshle.node = {
    hypervisor = mkOption {
      type = types.nullOr (
        types.enum [
          "auto"
          "cloud-hypervisor"
          "qemu"
        ]
      );
      default = null;
      example = "qemu";
      description = ''
        The hypervisor of templates that name none; `auto`, which it is when null, takes cloud-hypervisor where
        hardware virtualisation works, else QEMU.
      '';
    };
    accel = mkOption {
      type = types.nullOr (
        types.enum [
          "auto"
          "kvm"
          "tcg"
        ]
      );
      default = null;
      example = "kvm";
      description = "What executes the guests' instructions; `auto`, which it is when null, takes kvm where it works, else tcg.";
    };
    ovsDb = mkOption {
      type = types.nullOr (types.strMatching "(unix|tcp|ssl):.+");
      default = null;
      example = "unix:/run/openvswitch/db.sock";
      description = "The Open vSwitch database; null: where {command}`ovs-vsctl` looks by itself.";
    };
    hostsFile = file "/run/virshle-hosts" "The file that gets the names of VMs where systemd-resolved does not run; null: {file}`/etc/hosts`.";
    cloudHypervisor = {
      program = file "/opt/cloud-hypervisor/cloud-hypervisor" "The program; null: that of {option}`services.virshle.hypervisors.cloudHypervisor.package`.";
      firmware = file "/opt/firmware/CLOUDHV.fd" "The firmware; null: that of {option}`services.virshle.hypervisors.firmware.package`.";
    };
    qemu = {
      program = file "/opt/qemu/bin/qemu-system-x86_64" "The program; null: that of {option}`services.virshle.hypervisors.qemu.package`.";
      firmware = file "/opt/firmware/OVMF_CODE_4M.fd" "The firmware's code; null: that of QEMU's package.";
      vars = file "/opt/firmware/OVMF_VARS_4M.fd" "The firmware's empty variable store, which each VM gets a copy of; null: that of QEMU's package.";
    };
  };
}
