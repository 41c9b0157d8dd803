//! What the monitor asks the primary of each database. Works on PostgreSQL 14 to 18 for a role
//! without privileges: system catalogs only.
//!
//! Each query answers with one `text` column, except `async_commit_possible` and `other_isolation_possible`
//! with one `boolean` row, and `readers`, which takes names.

/// The queries, one for each field of `CatalogRows`.
#[derive(Clone, Copy, Debug)]
pub struct CatalogQueries {
    /// → `CatalogRows::writing_functions`.
    pub writing_functions: &'static str,
    /// → `CatalogRows::safe_functions`.
    pub safe_functions: &'static str,
    /// → `CatalogRows::row_functions`.
    pub row_functions: &'static str,
    /// → `CatalogRows::primary_only_relations`.
    pub primary_only_relations: &'static str,
    /// → `CatalogRows::writing_types`.
    pub writing_types: &'static str,
    /// → `CatalogRows::writing_operators`.
    pub writing_operators: &'static str,
    /// → `CatalogRows::async_commit_possible`.
    pub async_commit_possible: &'static str,
    /// → `CatalogRows::momentary_functions`.
    pub momentary_functions: &'static str,
    /// → `CatalogRows::momentary_relations`.
    pub momentary_relations: &'static str,
    /// → `CatalogRows::other_isolation_possible`.
    pub other_isolation_possible: &'static str,
    /// → `CatalogRows::readers`: of the relations with the names in `$1`, (name, of, schema, certain).
    pub readers: &'static str,
}

/// Names in the body of a function, view or policy that make it one for the primary. A text search,
/// because PostgreSQL records no dependency on what came with initdb: too strict where such a name
/// is a column's, never too lax.
macro_rules! primary_names {
    () => {
        concat!(
            r"'\m(nextval|setval|currval|lastval|set_config|setseed|lo_\w+|loread|lowrite|dblink\w*|ts_stat|ts_rewrite",
            r"|(query|cursor|table|schema|database)_to_xml\w*|txid_\w+|inet_(server|client)_\w+",
            r"|pg_(notify|logical_\w+|export_snapshot|(try_)?advisory_\w+|(last|current|switch|create|drop)_\w+|is_in_recovery",
            r"|is_wal_\w+|get_wal_\w+|walfile_\w+|promote|reload_conf|(terminate|cancel|log)_backend\w*|(stat|statio)_\w+",
            r"|locks|lock_status|settings|show_all_settings|sequences|sequence_last_value|prepared_\w+|cursors?|replication_\w+",
            r"|get_replication_slots|backend_\w+|blocking_pids|postmaster_start_time|conf_load_time|ls_\w+|read_\w+",
            r"|hba_file_rules|file_settings|control_\w+|listening_channels|my_temp_schema))\M'"
        )
    };
}

/// The functions of the database that may write, as `writing(oid)`. A stable function whose body
/// names one of `primary_names` is among them: PostgreSQL does not keep it from calling it. Objects
/// with an oid below 16384 came with initdb.
macro_rules! writing {
    ($rest:expr) => {
        concat!(
            r"WITH volatile AS (
  SELECT oid FROM pg_catalog.pg_proc
  WHERE oid >= 16384 AND (provolatile = 'v' OR prokind = 'p' OR prosrc ~* ",
            primary_names!(),
            r")
), writing AS (
  SELECT oid FROM volatile
  UNION
  SELECT a.aggfnoid FROM pg_catalog.pg_aggregate a
  WHERE a.aggfnoid >= 16384 AND EXISTS (
    SELECT FROM volatile v
    WHERE v.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn))
)
",
            $rest
        )
    };
}

/// The functions of the database that are not IMMUTABLE, as `moment(oid)`. (What an aggregate is, its parts
/// decide.)
macro_rules! momentary {
    ($rest:expr) => {
        concat!(
            r"WITH RECURSIVE moment AS (
  SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.oid >= 16384 AND p.provolatile <> 'i'
  UNION
  SELECT a.aggfnoid FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc f
    ON f.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
  WHERE a.aggfnoid >= 16384 AND f.provolatile <> 'i'
)
",
            $rest
        )
    };
}

/// What views and policies depend on, as `edge(relation, refclassid, refobjid)`.
macro_rules! edge {
    () => {
        r", edge AS (
  SELECT r.ev_class AS relation, d.refclassid, d.refobjid
  FROM pg_catalog.pg_rewrite r
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
  WHERE r.ev_type = '1'
  UNION
  SELECT p.polrelid, d.refclassid, d.refobjid
  FROM pg_catalog.pg_policy p
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_policy'::regclass AND d.objid = p.oid
)"
    };
}

/// The queries of all versions.
pub const QUERIES: CatalogQueries = CatalogQueries {
    writing_functions: writing!(
        "SELECT DISTINCT p.proname::text FROM pg_catalog.pg_proc p JOIN writing w USING (oid) ORDER BY 1"
    ),
    safe_functions: writing!(
        "SELECT p.proname::text FROM pg_catalog.pg_proc p LEFT JOIN writing w USING (oid)
WHERE p.oid >= 16384 GROUP BY 1 HAVING bool_and(w.oid IS NULL) ORDER BY 1"
    ),
    row_functions: writing!(
        "SELECT DISTINCT p.proname::text FROM pg_catalog.pg_proc p JOIN writing w USING (oid)
JOIN pg_catalog.pg_type t ON t.oid = p.proargtypes[0]
WHERE p.pronargs = 1 AND (t.typtype IN ('c', 'p') OR t.typtype = 'd') ORDER BY 1"
    ),
    // Views and policies depend on functions, operators' functions and relations through pg_depend;
    // what depends on a relation of this kind is one itself.
    primary_only_relations: writing!(concat!(
        edge!(),
        r", named AS (
  SELECT c.oid FROM pg_catalog.pg_class c
  WHERE c.relkind = 'v' AND c.oid >= 16384 AND pg_catalog.pg_get_viewdef(c.oid) ~* ",
        primary_names!(),
        r"
  UNION
  SELECT p.polrelid FROM pg_catalog.pg_policy p WHERE pg_catalog.pg_get_expr(p.polqual, p.polrelid) ~* ",
        primary_names!(),
        r"
), seed AS (
  SELECT c.oid FROM pg_catalog.pg_class c
  WHERE c.relpersistence IN ('u', 't') OR c.relkind IN ('f', 'S')
  UNION SELECT oid FROM named
  UNION
  SELECT e.relation FROM edge e
  WHERE e.refclassid = 'pg_catalog.pg_proc'::regclass AND e.refobjid IN (SELECT oid FROM writing)
  UNION
  SELECT e.relation FROM edge e JOIN pg_catalog.pg_operator o ON o.oid = e.refobjid
  WHERE e.refclassid = 'pg_catalog.pg_operator'::regclass AND o.oprcode::oid IN (SELECT oid FROM writing)
  UNION
  -- A parent reads its partitions and children.
  SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
  WHERE c.relpersistence IN ('u', 't') OR c.relkind = 'f'
), up AS (
  SELECT relation AS relation, refobjid AS of FROM edge
  WHERE refclassid = 'pg_catalog.pg_class'::regclass AND relation <> refobjid
  UNION
  SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhparent
  WHERE c.relkind IN ('r', 'p', 'f')
)
SELECT DISTINCT c.relname::text FROM (
  WITH RECURSIVE closure(oid) AS (
    SELECT oid FROM seed
    UNION
    SELECT u.relation FROM closure r JOIN up u ON u.of = r.oid
  ) SELECT oid FROM closure
) r JOIN pg_catalog.pg_class c USING (oid)
WHERE c.oid >= 16384 AND c.relkind NOT IN ('i', 'I', 't') ORDER BY 1"
    )),
    // Array types are written as their element type with brackets.
    writing_types: writing!(
        ", checks AS (
  SELECT k.contypid AS oid FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::regclass AND d.objid = k.oid
  WHERE k.contypid <> 0 AND d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid IN (SELECT oid FROM writing)
  UNION
  SELECT c.casttarget FROM pg_catalog.pg_cast c WHERE c.castfunc IN (SELECT oid FROM writing)
)
SELECT DISTINCT t.typname::text FROM pg_catalog.pg_type t
WHERE t.oid IN (SELECT oid FROM checks) OR t.typbasetype IN (SELECT oid FROM checks)
   OR (t.oid >= 16384 AND (t.typinput::oid IN (SELECT oid FROM writing) OR t.typoutput::oid IN (SELECT oid FROM writing)))
ORDER BY 1"
    ),
    writing_operators: writing!(
        "SELECT DISTINCT o.oprname::text FROM pg_catalog.pg_operator o
WHERE o.oprcode::oid IN (SELECT oid FROM writing) ORDER BY 1"
    ),
    async_commit_possible: "SELECT pg_catalog.current_setting('synchronous_commit') = 'off'
  OR EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS c WHERE c LIKE 'synchronous_commit=%')
  OR EXISTS (SELECT FROM pg_catalog.pg_proc p, pg_catalog.unnest(p.proconfig) AS c WHERE c LIKE 'synchronous_commit=%')
  OR EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.oid >= 16384 AND p.prosrc ~* 'synchronous_commit')",
    momentary_functions: momentary!(
        "SELECT DISTINCT p.proname::text FROM pg_catalog.pg_proc p JOIN moment m USING (oid) ORDER BY 1"
    ),
    // A text search finds the clocks, as with `primary_names`.
    momentary_relations: momentary!(concat!(
        edge!(),
        r", text AS (
  SELECT c.oid, pg_catalog.pg_get_viewdef(c.oid) AS said FROM pg_catalog.pg_class c
  WHERE c.relkind = 'v' AND c.oid >= 16384
  UNION ALL
  SELECT p.polrelid, pg_catalog.pg_get_expr(p.polqual, p.polrelid) FROM pg_catalog.pg_policy p
), momentary(oid) AS (
  SELECT oid FROM text WHERE said ~* '\m(now|age|clock_timestamp|current_(date|time|timestamp)|localtime(stamp)?|statement_timestamp|timeofday|transaction_timestamp|uuidv7)\M'
  UNION
  SELECT e.relation FROM edge e WHERE e.refclassid = 'pg_catalog.pg_proc'::regclass AND e.refobjid IN (SELECT oid FROM moment)
  UNION
  SELECT e.relation FROM momentary m JOIN edge e ON e.refobjid = m.oid
  WHERE e.refclassid = 'pg_catalog.pg_class'::regclass AND e.relation <> m.oid
)
SELECT DISTINCT c.relname::text FROM momentary m JOIN pg_catalog.pg_class c USING (oid)
WHERE c.oid >= 16384 ORDER BY 1"
    )),
    other_isolation_possible: "SELECT pg_catalog.current_setting('default_transaction_isolation') <> 'read committed'
  OR EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS c
    WHERE pg_catalog.lower(c) LIKE 'default_transaction_isolation=%' AND pg_catalog.lower(c) <> 'default_transaction_isolation=read committed'
      AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())))",
    readers: READERS,
};

/// Who reads a relation, at any depth: views and policies (`pg_depend`), parents and children, functions
/// (`pg_depend` for those with a parsed body; by a text search for the others: too strict where a name
/// means something else, too lax where it is put together at run time), and what uses those functions:
/// operators, casts and domains too.
const READERS: &str = r"WITH RECURSIVE class(oid, kind) AS (
  VALUES ('pg_catalog.pg_class'::regclass, 'r'), ('pg_catalog.pg_proc'::regclass, 'f'),
    ('pg_catalog.pg_operator'::regclass, 'o'), ('pg_catalog.pg_type'::regclass, 't')
), edge(reader, kind, of, of_kind, certain) AS (
  SELECT r.ev_class, 'r', d.refobjid, k.kind, v.relkind = 'v'
  FROM pg_catalog.pg_rewrite r
  JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
  JOIN class k ON k.oid = d.refclassid WHERE r.ev_type = '1'
  UNION
  SELECT p.polrelid, 'r', d.refobjid, k.kind, false
  FROM pg_catalog.pg_policy p
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_policy'::regclass AND d.objid = p.oid
  JOIN class k ON k.oid = d.refclassid
  UNION
  SELECT d.objid, 'f', d.refobjid, k.kind, false
  FROM pg_catalog.pg_depend d JOIN class k ON k.oid = d.refclassid
  WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid >= 16384
  UNION
  SELECT o.oid, 'o', o.oprcode::pg_catalog.oid, 'f', false FROM pg_catalog.pg_operator o WHERE o.oid >= 16384
  UNION
  SELECT c.casttarget, 't', c.castfunc, 'f', false FROM pg_catalog.pg_cast c WHERE c.castfunc >= 16384
  UNION
  SELECT c.contypid, 't', d.refobjid, k.kind, false
  FROM pg_catalog.pg_constraint c
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::regclass AND d.objid = c.oid
  JOIN class k ON k.oid = d.refclassid WHERE c.contypid <> 0
  UNION
  SELECT t.oid, 't', t.typbasetype, 't', false FROM pg_catalog.pg_type t WHERE t.typtype = 'd'
  UNION
  SELECT inhparent, 'r', inhrelid, 'r', false FROM pg_catalog.pg_inherits
  UNION
  SELECT inhrelid, 'r', inhparent, 'r', false FROM pg_catalog.pg_inherits
), reads(kind, oid, name, base, certain) AS (
  SELECT 'r', c.oid, c.relname, c.oid, true FROM pg_catalog.pg_class c
  WHERE c.relname = ANY ($1::pg_catalog.text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  UNION
  SELECT x.kind, x.oid, x.name, r.base, r.certain AND x.certain FROM reads r, LATERAL (
    SELECT e.kind, e.reader AS oid, coalesce(k.relname, f.proname, o.oprname, t.typname) AS name, e.certain FROM edge e
    LEFT JOIN pg_catalog.pg_class k ON e.kind = 'r' AND k.oid = e.reader
    LEFT JOIN pg_catalog.pg_proc f ON e.kind = 'f' AND f.oid = e.reader
    LEFT JOIN pg_catalog.pg_operator o ON e.kind = 'o' AND o.oid = e.reader
    LEFT JOIN pg_catalog.pg_type t ON e.kind = 't' AND t.oid = e.reader
    WHERE e.of = r.oid AND e.of_kind = r.kind
    UNION ALL
    SELECT 'f', p.oid, p.proname, false FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang AND l.lanname NOT IN ('c', 'internal')
    WHERE p.oid >= 16384 AND CASE WHEN r.name ~ '^\w+$' THEN p.prosrc ~* ('\m' || r.name || '\M')
      ELSE pg_catalog.strpos(pg_catalog.lower(p.prosrc), pg_catalog.lower(r.name)) > 0 END
  ) x
)
SELECT r.name::pg_catalog.text, b.relname::pg_catalog.text, n.nspname::pg_catalog.text, pg_catalog.bool_or(r.certain)
FROM reads r JOIN pg_catalog.pg_class b ON b.oid = r.base JOIN pg_catalog.pg_namespace n ON n.oid = b.relnamespace
WHERE (r.kind <> 'r' OR r.oid <> r.base) AND r.name IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";

#[cfg(test)]
mod tests {
    use super::*;

    /// `cargo test --lib print_the_catalog_queries -- --nocapture` shows them, to be tried in psql.
    #[test]
    fn print_the_catalog_queries() {
        let queries = [
            QUERIES.writing_functions,
            QUERIES.safe_functions,
            QUERIES.row_functions,
            QUERIES.primary_only_relations,
            QUERIES.writing_types,
            QUERIES.writing_operators,
            QUERIES.async_commit_possible,
            QUERIES.momentary_functions,
            QUERIES.momentary_relations,
            QUERIES.other_isolation_possible,
            QUERIES.readers,
        ];
        for query in queries {
            println!("{query};\n");
            let balance: i64 = query.bytes().map(|b| i64::from(b == b'(') - i64::from(b == b')')).sum();
            assert_eq!(balance, 0);
            assert!(!query.contains(';'));
        }
    }
}
