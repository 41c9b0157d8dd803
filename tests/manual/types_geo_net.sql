-- Geometric, network, bit and UUID types, and object identifiers by name.
SELECT point '(1,2)', line '{1,-1,0}', lseg '[(0,0),(1,1)]', box '((0,0),(1,1))', path '[(0,0),(1,1)]', polygon '((0,0),(1,1),(2,0))', circle '<(1,1),2>';
SELECT box '((0,0),(1,1))' + point '(2,0)', point '(1,0)' * point '(0,2)', box '((0,0),(1,1))' # box '((0.5,0.5),(2,2))', # path '((1,0),(0,1),(-1,0))', @-@ path '((0,0),(1,0))', @@ circle '((0,0),10)',
       point '(0,0)' ## lseg '((2,0),(0,2))', circle '<(0,0),1>' <-> circle '<(5,0),1>', box '((0,0),(3,3))' @> point '(1,1)', circle '<(0,0),1>' ~= circle '<(0,0),1>', point '(1,0)' ?- point '(0,0)';
SELECT area(box '((0,0),(2,3))'), center(box '((0,0),(1,2))'), diameter(circle '<(0,0),2>'), height(box '((0,0),(1,3))'), isclosed(path '((0,0),(1,1))'), length(path '((-1,0),(1,0))'), npoints(path '[(0,0),(1,1)]'), popen(path '((0,0),(1,1))'), radius(circle '<(0,0),2>'), width(box '((0,0),(1,3))');
SELECT box(circle '((0,0),2)'), circle(box '((0,0),(1,1))'), polygon(4, circle '<(3,0),1>'), lseg(box '((-1,0),(1,0))');
SELECT point '(1,2';
SELECT inet '192.168.100.128/25', cidr '10.1.2', macaddr '08-00-2b-01-02-03', macaddr8 '08:00:2b:01:02:03:04:05', inet '::ffff:1.2.3.4/128';
SELECT cidr '192.168.1.5/24';
SELECT inet '192.168.1.5' < inet '192.168.1.6', inet '192.168.1.5' << inet '192.168.1/24', inet '192.168.1/24' && inet '192.168.1.80/28', ~ inet '192.168.1.6', inet '192.168.1.6' & inet '0.0.0.255', inet '192.168.1.6' + 25, inet '192.168.1.43' - inet '192.168.1.19';
SELECT abbrev(cidr '10.1.0.0/16'), broadcast(inet '192.168.1.5/24'), family(inet '::1'), host(inet '192.168.1.0/24'), hostmask(inet '192.168.23.20/30'), inet_merge(inet '192.168.1.5/24', inet '192.168.2.5/24'), masklen(inet '192.168.1.5/24'), netmask(inet '192.168.1.5/24'), network(inet '192.168.1.5/24'), set_masklen(inet '192.168.1.5/24', 16), trunc(macaddr '12:34:56:78:90:ab'), macaddr8_set7bit(macaddr8 '00:34:56:ab:cd:ef');
CREATE TABLE test (a bit(3), b bit varying(5));
INSERT INTO test VALUES (B'101', B'00');
INSERT INTO test VALUES (B'10', B'101');
INSERT INTO test VALUES (B'10'::bit(3), B'101');
SELECT * FROM test ORDER BY a;
SELECT B'10001' & B'01101', B'10001' | B'01101', B'10001' # B'01101', ~ B'10001', B'10001' << 3, 44::bit(10), '1110'::bit(4)::int, bit_count(B'101'), get_bit(B'101', 2), set_bit(B'101', 1, 1), B'11' || B'00';
SELECT B'101' & B'1';
SELECT 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, '{A0EEBC999C0B4EF8BB6D6BB9BD380A11}'::uuid;
SELECT 'a0eebc99'::uuid;
SELECT gen_random_uuid() <> gen_random_uuid() AS different;
SELECT 'pg_class'::regclass, 'sum(int4)'::regprocedure, 'int4'::regtype, '+(int4,int4)'::regoperator, 'english'::regconfig, 'public'::regnamespace, to_regclass('nowhere');
SELECT 'nowhere'::regclass;
SELECT '16/B374D848'::pg_lsn - '16/B374D840'::pg_lsn, '10:20:10,14,15'::pg_snapshot, NULL::void IS NULL AS pseudo;
