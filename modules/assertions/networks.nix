# Subnets that overlap, where guests or this host would not know which one is meant.
{ declared, lib, ... }:
let
  inherit (lib)
    concatMap
    filter
    imap0
    optional
    take
    ;
  ipv4 = import ../lib/ipv4.nix { inherit lib; };
  networks = filter (network: network.type != "user" && network ? subnet) declared.networks;

  beside =
    one: two:
    let
      together = one.bridge == two.bridge || (one.served && two.served);
    in
    optional (together && ipv4.overlap (ipv4.subnet one.subnet) (ipv4.subnet two.subnet))
      "the subnets of the networks `${two.name}` (${two.subnet}) and `${one.name}` (${one.subnet}) overlap. Give one of them another subnet, like `10.45.0.0/24`; a bridge that is the site's own has `create = false`.";
in
concatMap (pairs: pairs) (imap0 (index: one: concatMap (beside one) (take index networks)) networks)
