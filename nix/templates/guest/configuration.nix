# Name, users, keys and addresses come from Virshle, at the first boot; here stands what the guest does.
{ pkgs, ... }:
{
  environment.systemPackages = [ pkgs.htop ];

  services.nginx = {
    enable = true;
    virtualHosts.default.locations."/".return = "200 'hello\\n'";
  };
  networking.firewall.allowedTCPPorts = [ 80 ];

  system.stateVersion = "26.11";
}
