# The package's units as NixOS runs them: no guest ends or stops for a new system, and the declared
# VMs are brought to what the new one says.
{ config, lib, ... }:
let
  inherit (lib)
    genAttrs
    mkForce
    mkIf
    optional
    ;
  cfg = config.services.virshle;
  applies = cfg.apply.enable && cfg.settings != { };

  # Hypervisors and switches where the config names none.
  environment.PATH = mkForce "/run/current-system/sw/bin";
  unit = {
    overrideStrategy = "asDropin";
    # A new system leaves the guests of the old one running.
    restartIfChanged = false;
    stopIfChanged = false;
    inherit environment;
  };

  # Both the folders of the VMs and their sockets: hypervisors pass through to their own VM's;
  # nobody else may list or read them.
  folder.d = {
    mode = "0711";
    user = "root";
    group = "root";
  };
in
{
  config = mkIf cfg.enable {
    systemd = {
      packages = [ cfg.package ];

      tmpfiles.settings."10-virshle" = genAttrs [ "/var/lib/virshle" "/run/virshle" ] (_: folder);

      services =
        genAttrs [
          "virshle-vm@"
          "virshle-network@"
          "virshle-shutdown"
          "virshle@"
        ] (_: unit)
        // {
          virshle-autostart = unit // {
            wantedBy = [ "multi-user.target" ];
          };
          virshle-apply = {
            overrideStrategy = "asDropin";
            wantedBy = optional applies "multi-user.target";
            # It does what is to be done, and ends: that it runs again is how a new config arrives. Where it is
            # no longer wanted, its own change must not be what runs it once more.
            restartIfChanged = applies;
            stopIfChanged = false;
            restartTriggers = optional applies cfg.configFile;
            # A switch that is new in the same system comes up before it.
            wants = optional cfg.openvswitch.enable "ovs-vswitchd.service";
            inherit environment;
          };
        };

      sockets.virshle = {
        overrideStrategy = "asDropin";
        wantedBy = [ "sockets.target" ];
      };
    };

    # `dry-activate` changes nothing, and says what a switch would do to the VMs.
    system.activationScripts.virshle-plan = mkIf applies {
      supportsDryActivation = true;
      text = ''
        if [ "$NIXOS_ACTION" = dry-activate ]; then
          PATH=/run/current-system/sw/bin:$PATH ${lib.getExe cfg.package} plan --config ${cfg.configFile} || true
        fi
      '';
    };
  };
}
