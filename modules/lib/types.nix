# The words of the TOML's values, as types, and the options that many tables have.
{ lib }:
let
  inherit (lib) literalExpression mkOption types;
  matching =
    pattern: description:
    types.strMatching pattern
    // {
      inherit description;
      descriptionClass = "noun";
    };
in
rec {
  name = matching "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?" "name (a DNS label: a-z, 0-9 and inner hyphens, at most 63)";
  device = matching "[A-Za-z0-9_.-]{1,15}" "name of a network interface";
  size = types.either types.ints.positive (
    matching "[0-9]+([.][0-9]+)? *([bB]|[kKmMgGtT]([iI]?[bB])?)?" ''size (a number of GiB, or a text like "512MiB")''
  );
  address = matching "[0-9]{1,3}([.][0-9]{1,3}){3}" "IPv4 address";
  subnet = matching "[0-9]{1,3}([.][0-9]{1,3}){3}/[0-9]{1,2}" "IPv4 subnet";
  subnet6 = matching "[0-9a-fA-F:.]+/64" "IPv6 subnet (a /64)";
  mac = matching "[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}" "MAC address";
  forward = matching "([0-9]{1,3}([.][0-9]{1,3}){3}:)?[0-9]{1,5}:[0-9]{1,5}(/(tcp|udp))?" "forward ([ADDRESS:]HOST-PORT:GUEST-PORT[/tcp|/udp])";
  rate = matching "[0-9]+([.][0-9]{1,3})?[kMG]bit" "rate (bits a second)";
  # A text, never a path of Nix: that would be copied into the store, which everyone reads.
  file = matching "/.+" "absolute path, as a text";

  # What is left out of the TOML where nobody says it.
  maybe =
    type: example: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit example description;
    };

  # The name of what an attribute set has in the place of a list.
  named =
    default: example: description:
    mkOption {
      type = name;
      inherit default example description;
      defaultText = literalExpression "‹name›";
    };
}
