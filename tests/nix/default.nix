# Evaluates the module without NixOS: what each case comes to, and what every option says of itself.
{ lib }:
let
  evaluate = import ./host.nix { inherit lib; };
  cases = import ./cases.nix;
  documented =
    map
      (option: {
        inherit (option) name type description;
        example = option.example.text or null;
        default = option.default.text or null;
      })
      (
        lib.filter (option: !option.internal) (
          lib.optionAttrSetToDocList { services = { inherit ((evaluate [ ]).options.services) virshle; }; }
        )
      );
in
{
  cases = lib.mapAttrs (_: modules: (evaluate modules).outcome) cases.hosts;
  # Whether each is taken all the same.
  mistyped = lib.mapAttrs (
    _: modules:
    let
      inherit ((evaluate modules).outcome) settings;
    in
    (builtins.tryEval (builtins.deepSeq settings true)).success
  ) cases.mistyped;
  options = documented;
}
