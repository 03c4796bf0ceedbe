# Who may use the host's VMs, and whom their hypervisors run as.
{ config, lib, ... }:
let
  inherit (lib) mkIf mkMerge;
  cfg = config.services.virshle;
in
{
  config = mkIf cfg.enable {
    users = mkMerge [
      {
        groups.virshle.members = cfg.members;
      }
      (mkIf (cfg.user == "virshle-vm") {
        groups.${cfg.group} = { };
        users.virshle-vm = {
          description = "Virshle's virtual machines";
          isSystemUser = true;
          inherit (cfg) group;
          home = "/var/empty";
        };
      })
    ];
  };
}
