use placement::{MemType, Placement, Place};
use ttm::{bo::BoInfo, context::OpContext, fixture::*};
#[test]
fn evict_lru() {
    let d = device_of(4);
    let bos: Vec<_> = (0..6).map(|_| d.create(BoInfo::new(4096), ()).unwrap()).collect();
    for b in &bos { d.exec(OpContext::new(), |t| t.lock(b)?.validate(&vram())).unwrap(); d.check().unwrap(); }
    assert_eq!(d.eviction_order(MemType::VRAM, 0), [3,4,5,6]);
    d.exec(OpContext::new(), |t| t.lock(&bos[2])?.validate(&vram())).unwrap();
    assert_eq!(d.eviction_order(MemType::VRAM, 0), [4,5,6,3]);
    d.exec(OpContext::new(), |t| t.lock(&bos[0])?.validate(&vram())).unwrap();
    assert_eq!(d.eviction_order(MemType::VRAM, 0), [5,6,3,1]);
    assert_eq!(d.manager(MemType::VRAM).unwrap().counters().evictions, 3);
    println!("{}", d.explain(4));
    let _ = Placement::of(Place::new(MemType::TT));
    d.check().unwrap();
    drop(bos);
    d.close(None).unwrap();
}
#[test]
fn threads() {
    let d = device_of(64);
    let bos: Vec<_> = (0..200).map(|_| d.create(BoInfo::new(4096), ()).unwrap()).collect();
    std::thread::scope(|s| for seed in 0..4u64 {
        let d=&d; let bos=&bos;
        s.spawn(move || { let mut x = seed+1; for _ in 0..20000 {
            let mut next=|| {x^=x<<13;x^=x>>7;x^=x<<17; (x>>33) as usize % 200};
            let (a,b,c)=(next(),next(),next());
            d.exec(OpContext::new(), |t| { for i in [a,b,c] { match t.lock(&bos[i]) { Ok(r)=>r.validate(&vram())?, Err(ttm::Error::AlreadyLocked)=>{}, Err(e)=>return Err(e) } } Ok(()) }).unwrap();
        }});
    });
    d.check().unwrap();
    println!("backoffs {} {:?}", d.back_offs(), d.manager(MemType::VRAM).unwrap().counters());
}
