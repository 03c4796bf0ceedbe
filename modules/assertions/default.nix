# What would be refused later, by `v` or by the host: told at the evaluation, each with its remedy.
# They read the settings, so that it makes no difference whether an option or `settings` said it.
{ config, lib, ... }:
let
  inherit (lib)
    concatMap
    filter
    head
    mkIf
    optional
    ;
  cfg = config.services.virshle;
  declared = import ../lib/declared.nix { inherit lib; } cfg.settings;
  ovs = filter (network: network.type == "ovs") declared.networks;
  arguments = {
    inherit
      cfg
      config
      declared
      lib
      ;
  };
in
{
  config = mkIf cfg.enable {
    warnings =
      optional (ovs != [ ] && !config.virtualisation.vswitch.enable && cfg.node.ovsDb == null)
        "services.virshle: the network `${(head ovs).name}` is of the type `ovs`, and this host has no Open vSwitch. Set `services.virshle.openvswitch.enable = true`, or `type = \"bridge\"`.";

    assertions =
      map
        (message: {
          assertion = false;
          message = "services.virshle: ${message}";
        })
        (
          concatMap (file: import file arguments) [
            ./names.nix
            ./networks.nix
            ./nics.nix
            ./host.nix
          ]
        );
  };
}
