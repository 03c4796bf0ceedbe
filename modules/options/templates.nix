# `[[template.vm]]`: what VMs are made from.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  machine = import ./machine.nix { inherit lib; };
  words = import ../lib/types.nix { inherit lib; };

  template =
    { name, ... }:
    {
      options = machine.options // {
        name = words.named name "xs" "Its name, for a VM's `template` and {command}`v vm create -t`.";
        vcpu = mkOption {
          type = machine.vcpu;
          example = 2;
          description = "How many processors.";
        };
        vram = mkOption {
          type = machine.vram;
          example = "4G";
          description = "How much memory, in whole MiB.";
        };
      };
    };
in
{
  options.services.virshle.templates = mkOption {
    type = types.attrsOf (types.submodule template);
    default = { };
    example = {
      xs = {
        vcpu = 1;
        vram = "2G";
        disks.os = {
          image = "debian-12";
          size = "20G";
        };
        nets.lan = { };
      };
    };
    description = "What VMs are made from.";
  };
}
