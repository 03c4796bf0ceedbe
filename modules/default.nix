# Virshle on NixOS: `services.virshle`, from options to running VMs.
#
#   options/     what can be said, each option typed, described, and with an example
#   settings     options become /etc/virshle/config.toml, checked by `v` when the system is built
#   assertions/  what `v` could only refuse later: it stops the evaluation, with a remedy
#   hypervisors, openvswitch, firewall, users, units: what the VMs need of the host
#
# An option is named as the key of the TOML is, in camelCase: `vramMax` is `vram-max`. What the TOML
# has in a list (`[[network]]`, `[[vm]]`, a VM's `disk` and `net`) is an attribute set in the plural,
# so that modules can add to it. ../public/nixos.md has them all.
{
  imports = [
    ./assertions
    ./firewall.nix
    ./hypervisors.nix
    ./openvswitch.nix
    ./options
    ./settings.nix
    ./units.nix
    ./users.nix
  ];
}
