//! The division of topics among several servers.
//!
//! Each node calculates the same number for a topic, without asking anybody: a hash of the name, and a jump
//! consistent hash of it. With a server more at the end of the list, only the topics of the new server move.

/// Returns the index of the server of a topic.
pub(crate) fn server_of(topic: &str, servers: usize) -> usize {
    jump(fnv1a(topic.as_bytes()), servers)
}

/// FNV-1a with 64 bits (RFC 9923).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The jump consistent hash of Lamping and Veach (2014, arXiv:1406.2294).
fn jump(mut key: u64, buckets: usize) -> usize {
    let (mut bucket, mut next) = (0, 0);
    while next < buckets as u64 {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) << 31) / ((key >> 33) + 1);
    }
    usize::try_from(bucket).expect("the bucket is less than their number")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of the Internet draft of FNV.
    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    /// The test vectors of `ClickHouse` and of the Python package `jump-consistent-hash`, and those that
    /// `github.com/dgryski/go-jump` generated from the code of the paper.
    #[test]
    fn the_division_is_that_of_the_paper() {
        for (key, buckets, bucket) in [
            (1, 1, 0),
            (42, 57, 43),
            (256, 1024, 520),
            (0xdead_10cc, 666, 361),
            (16_045_690_984_833_335_023, 255, 237),
        ] {
            assert_eq!(jump(key, buckets), bucket);
        }
        let growing = |key| (1..=19).map(|buckets| jump(key, buckets)).collect::<Vec<_>>();
        assert_eq!(growing(0xdead_beef), [0, 1, 2, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 16, 16, 16]);
        assert_eq!(
            growing(0x0ddc_0ffe_ebad_f00d),
            [0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 15, 15, 15, 15]
        );
    }

    #[test]
    fn a_server_more_moves_only_its_own_topics() {
        let topics: Vec<_> = (0..4000).map(|number| format!("chat/{number}")).collect();
        for servers in 1..8 {
            let moved =
                topics.iter().filter(|topic| server_of(topic, servers) != server_of(topic, servers + 1));
            let moved: Vec<_> = moved.map(|topic| server_of(topic, servers + 1)).collect();
            assert!(moved.iter().all(|server| *server == servers));
            let share = topics.len() / (servers + 1);
            assert!((share * 9 / 10..share * 11 / 10).contains(&moved.len()), "{} of {share}", moved.len());
        }
    }
}
