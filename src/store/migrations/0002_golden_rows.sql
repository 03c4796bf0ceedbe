-- Rows as schema 2 holds them; a test reads them with every later program.
PRAGMA user_version = 2;
PRAGMA journal_mode = WAL;

INSERT INTO vm (uuid, number, name, node, template, state, intent, spec, exit, runtime, owner,
                created_at, updated_at, started_at, progress, retries) VALUES (
    '7c2d0a1e-91a7-4d2c-9d52-0123456789ab', 3, 'web', 'local', 'xs', 'stopping', 'stop',
    '{"version":2,"uuid":"7c2d0a1e-91a7-4d2c-9d52-0123456789ab","number":3,"name":"web","template":"xs","hypervisor":"cloud-hypervisor","accel":"kvm","vcpu":1,"vram":"2GiB","boot":{"kind":"firmware","code":"/usr/share/cloud-hypervisor/CLOUDHV.fd","vars":null},"disks":[{"name":"os","source":"/var/lib/virshle/cache/nixos.raw","size":"50GiB","readonly":false}],"nics":[{"index":0,"network":"main","mac":"7e:2d:0a:1e:91:a7","link":{"kind":"vhost","bridge":"vsbr0","create":false},"address":{"ip":"10.44.0.2/24","gateway":"10.44.0.1","dns":["10.44.0.1","2001:db8::53"]}},{"index":1,"network":"lan","mac":"7e:2d:0a:1e:91:a8","link":{"kind":"tap","bridge":"br0","switch":"ovs","create":true},"address":null}],"seed":true,"login":"ann","policy":{"restart":"on-crash","watchdog":true,"autostart":{"order":2,"delay":10},"limits":{"millicpus":1500,"memory":"3GiB"},"stop_timeout":90}}',
    '{"reason":"powered-off"}',
    '{"supervisor":{"pid":4711,"start_time":99},"hypervisor":{"pid":4712,"start_time":100},"ssh":null,"troubles":[{"port":"v3n1","ailment":"missing","detail":null}]}',
    NULL,
    '2025-06-02T03:04:05.123456789Z', '2025-06-02T03:05:00Z', '2025-06-02T03:04:59.5Z',
    '{"verb":"stop","step":"shutdown","done":true}', '{"attempts":3,"next_at":"2025-06-02T03:06:00Z"}'
);
INSERT INTO address VALUES ('main', '10.44.0.2', '7c2d0a1e-91a7-4d2c-9d52-0123456789ab', 0);

INSERT INTO history (id, time, vm, name, actor, happening) VALUES
    (1, '2025-06-02T03:04:05Z', '7c2d0a1e-91a7-4d2c-9d52-0123456789ab', 'old', '{"kind":"user","uid":1000,"name":"ann"}', '{"what":"state","from":null,"to":"creating","intent":null,"exit":null}'),
    (2, '2025-06-02T03:04:06Z', '7c2d0a1e-91a7-4d2c-9d52-0123456789ab', 'web', '{"kind":"user","uid":1000,"name":null}', '{"what":"renamed","from":"old"}'),
    (3, '2025-06-02T03:04:07Z', '7c2d0a1e-91a7-4d2c-9d52-0123456789ab', 'web', '{"kind":"unknown"}', '{"what":"state","from":"running","to":"crashed","intent":null,"exit":{"reason":"killed","signal":9}}'),
    (4, '2025-06-02T03:04:08Z', '7c2d0a1e-91a7-4d2c-9d52-0123456789ab', 'web', '{"kind":"supervisor"}', '{"what":"port-lost","port":"v3n1"}');
UPDATE last_number SET number = 9;
