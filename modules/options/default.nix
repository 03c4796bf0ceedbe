{
  imports = [
    ./images.nix
    ./networks.nix
    ./node.nix
    ./openvswitch.nix
    ./service.nix
    ./templates.nix
    ./vms.nix
  ];
}
