//! The smallest useful client: it connects, sends a message, and prints the answer.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("usage: weight URL")?;
    let mut socket = bowline::connect(url).await?;
    socket.send("hello").await?;
    println!("{:?}", socket.recv().await?);
    Ok(())
}
