//! Private addresses that the machine's own network does not use.
//!
//! Nothing of ours is reachable from there; but whoever looks into a namespace, or at a log, should
//! not take our addresses for others.

use std::net::Ipv4Addr;

/// The second number of all our addresses.
pub(super) const SECOND: u8 = 77;

/// A route: where to, and the mask.
type Route = (u32, u32);

/// The third number of the first of our ranges (`10.77.K.0/24`) that no route leads to.
pub(super) fn free(table: &str) -> Option<u8> {
    let routes: Vec<Route> = table.lines().filter_map(route).collect();
    (0..=u8::MAX).find(|third| {
        let range = u32::from(Ipv4Addr::new(10, SECOND, *third, 0));
        !routes.iter().any(|(to, mask)| overlaps(range, (*to, *mask)))
    })
}

/// A line of `/proc/net/route`: device, destination, gateway, flags, three counts, mask; addresses
/// in hexadecimal, as they lie in memory.
fn route(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |at: usize| {
        let field = fields.get(at).filter(|field| field.len() == 8)?;
        Some(u32::from_be(u32::from_str_radix(field, 16).ok()?))
    };
    Some((number(1)?, number(7)?))
}

/// Whether a route leads into a range of 256 addresses; the default route, which leads everywhere,
/// says nothing.
const fn overlaps(range: u32, (to, mask): Route) -> bool {
    let both = mask & 0xFFFF_FF00;
    mask != 0 && (range & both) == (to & both)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n";

    #[test]
    fn the_first_range_that_no_route_leads_to_is_taken() {
        let default = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\n";
        assert_eq!(free(&format!("{HEAD}{default}")), Some(0));
        // 10.77.0.0/24 by a bridge, 10.77.1.64/26 by a tunnel.
        let taken = "br0\t00004D0A\t0\t0001\t0\t0\t0\t00FFFFFF\t0\n\
                     tun0\t40014D0A\t0\t0001\t0\t0\t0\tC0FFFFFF\t0\n";
        assert_eq!(free(&format!("{HEAD}{default}{taken}")), Some(2));
        // 10.0.0.0/8: nothing is left.
        let all = "wg0\t0000000A\t0\t0001\t0\t0\t0\t000000FF\t0\n";
        assert_eq!(free(&format!("{HEAD}{all}")), None);
    }
}
